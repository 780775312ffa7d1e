"""The files of tables: what they are called, and who writes and reads them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from qortex_db.names import hashed, is_plain
from qortex_db.transfer.archive import json_lines, kinds, parquet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from qortex_db.transfer.archive.kinds import Field
    from qortex_db.transfer.archive.manifest import Column

Format: TypeAlias = Literal["parquet", "jsonl", "jsonl.gz"]
_READABLE: Final = 60


def begin(format: Format, path: Path, columns: Sequence[Column]) -> Any:  # noqa: A002 - its name
    """Begin a file."""
    return (parquet if format == "parquet" else json_lines).Writer(path, columns)


def columns_of(
    format: Format,  # noqa: A002 - its name
    columns: Sequence[Column],
) -> tuple[Column, ...]:
    """Columns as they are written: the server itself writes vectors as JSON, and reads them."""
    if format == "parquet":
        return tuple(columns)
    return tuple(
        replace(column, kind=kinds.ARRAY) if column.kind in kinds.VECTORS else column
        for column in columns
    )


def read(
    format: str,  # noqa: A002 - its name
    path: Path,
    columns: Sequence[Column],
) -> Iterator[list[list[Field]]]:
    """The batches of a file, by columns."""
    if format == "parquet":
        return parquet.read(path, columns)
    return json_lines.read(path, columns)


def name_of(table: str, number: int, format: Format) -> str:  # noqa: A002 - its name
    """What a table's part is called, on any file system."""
    stem = table
    if not is_plain(table) or len(table) > _READABLE or table != table.lower():
        readable = "".join(each if is_plain(each) else "_" for each in table[:_READABLE].lower())
        stem = f"{readable}_{hashed(table)}"
    return f"{stem}-{number:05}.{format}"
