"""The manifest: what an export holds, with what it can be checked by. It is written last."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field, fields
from hashlib import file_digest
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from qortex_db.errors import InvalidInputError
from qortex_db.messages import shown
from qortex_db.transfer.archive import kinds

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FORMAT_VERSION: Final = 1
NAME: Final = "manifest.json"
T = TypeVar("T", bound="Manifest | TableEntry | Column | Sequence | Part")
_FORMATS: Final = ("parquet", "jsonl", "jsonl.gz")
_TYPES: Final = {
    "str": (str,),
    "int": (int,),
    "str | None": (str, NoneType),
    "int | None": (int, NoneType),
}
"""What a value may be, by how its field is annotated."""
_FILE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")
_INTACT: Final = "Take the export from where it was copied, or export again; nothing was changed."


@dataclass(frozen=True, slots=True)
class Column:
    """A column that is in the files.

    Attributes:
        type: As PostgreSQL has it, without the schema of a type of somebody else's.
        kind: How its values are written.
        dimensions: Of vectors that are lists of one size in the files: the column says how many,
            and none is NULL.
    """

    name: str
    type: str
    kind: str
    dimensions: int | None = None


@dataclass(frozen=True, slots=True)
class Sequence:
    """Where a column's numbers go on.

    Attributes:
        last_value: The last that was given; None where there was none, or the role may not know.
            The largest of the column counts then.
    """

    column: str
    last_value: int | None


@dataclass(frozen=True, slots=True)
class Part:
    """A file with some of a table's rows."""

    file: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class TableEntry:
    """A table.

    Attributes:
        schema: As its model says; None for that of the database's settings, or of its search_path.
        checksum: Of all rows as PostgreSQL sends them, whatever their order.
    """

    name: str
    schema: str | None
    columns: tuple[Column, ...]
    sequences: tuple[Sequence, ...]
    rows: int
    checksum: str
    parts: tuple[Part, ...]

    @property
    def fullname(self) -> str:
        """Its name, with its schema where that is given."""
        return self.name if self.schema is None else f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an export holds.

    Attributes:
        id: Of this export, by which a restore that was stopped is known again.
        made_at: When its snapshot was taken, ISO 8601.
        revision: Of the package's tables; None where a host's history doesn't say.
        schema: Where those without a schema of their own were.
        server_version: Of PostgreSQL.
    """

    id: str
    made_at: str
    package_version: str
    server_version: str
    revision: str | None
    schema: str
    format: str
    tables: tuple[TableEntry, ...]
    format_version: int = field(default=FORMAT_VERSION)

    @property
    def rows(self) -> int:
        """Of all tables."""
        return sum(table.rows for table in self.tables)

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(part.bytes for table in self.tables for part in table.parts)

    def write(self, folder: Path) -> None:
        """Put it beside its files, whole or not at all."""
        path = folder / f"{NAME}.tmp"
        with path.open("w", encoding="utf-8") as file:
            json.dump(asdict(self), file, indent=2, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        path.replace(folder / NAME)
        sync(folder)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The manifest of a folder.

        Raises:
            InvalidInputError: There is none, it is damaged, or a newer version wrote it.
        """
        try:
            text = (folder / NAME).read_text("utf-8")
        except FileNotFoundError:
            raise InvalidInputError(
                f"There is no {NAME} in {folder}: it is no export, or one that was stopped before "
                "its end. Remove the folder, and export again."
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(
                f"{folder / NAME} can't be read ({type(error).__name__})."
            ) from None
        try:
            given = json.loads(text)
            version = given["format_version"]
            if type(version) is int and version > FORMAT_VERSION:
                raise InvalidInputError(
                    f"qortex-db {given.get('package_version')} wrote this export, in format "
                    f"{version}; this one reads up to {FORMAT_VERSION}. Install that version, or a "
                    "later one."
                )
            tables = tuple(_table(each, str(given["format"])) for each in given["tables"])
            return _typed(cls(**given | {"tables": tables}))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, InvalidInputError):
                raise
            raise InvalidInputError(
                f"{folder / NAME} is damaged ({type(error).__name__}). {_INTACT}"
            ) from None

    def verify(self, folder: Path, entries: Iterable[TableEntry]) -> None:
        """Compare every file of some tables with what is written of it.

        Raises:
            InvalidInputError: One is missing, or another.
        """
        for table in entries:
            for part in table.parts:
                path = folder / part.file
                if not path.is_file():
                    raise InvalidInputError(
                        f"{path}, with {part.rows:,} rows of {table.name}, is missing. {_INTACT}"
                    )
                if sealed(path) != (part.bytes, part.sha256):
                    raise InvalidInputError(
                        f"{path}, with {part.rows:,} rows of {table.name}, is damaged: its size "
                        f"or its SHA-256 is not what {NAME} says. {_INTACT}"
                    )


def sealed(path: Path) -> tuple[int, str]:
    """A file's size and SHA-256."""
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
        return file.tell(), digest


def sync(path: Path) -> None:
    """Have a file or a folder on the disk, as far as the system lets one."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # a folder of Windows'
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _typed(made: T) -> T:
    """What was read, where its texts and numbers are such."""
    for each in fields(made):
        kinds_of = _TYPES.get(str(each.type))
        value = getattr(made, each.name)
        if kinds_of is not None and type(value) not in kinds_of:
            raise TypeError(each.name)
        if each.name == "format" and value not in _FORMATS:
            raise ValueError(shown(value))
        if (type(value) is int and value < 0 and each.name != "last_value") or "\0" in str(value):
            raise ValueError(each.name)
    return made


def _table(given: dict[str, Any], kind: str) -> TableEntry:
    columns = tuple(_typed(Column(**each)) for each in given["columns"])
    parts = tuple(_typed(Part(**each)) for each in given["parts"])
    for column in columns:
        if column.kind not in kinds.KINDS:
            raise ValueError(shown(column.kind))
    for part in parts:
        # Nothing outside of the folder, nor of another format.
        if not (_FILE.fullmatch(part.file) and part.file.endswith(f".{kind}")):
            raise ValueError(shown(part.file))
    sequences = tuple(_typed(Sequence(**each)) for each in given["sequences"])
    lists = {"columns": columns, "parts": parts, "sequences": sequences}
    table = _typed(TableEntry(**given | lists))
    if sum(part.rows for part in parts) != table.rows:
        raise ValueError(table.name)
    return table
