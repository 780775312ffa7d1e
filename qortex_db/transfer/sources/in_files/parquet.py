"""Rows in a Parquet file, or in a folder of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from qortex_db.errors import InvalidInputError, NotFoundError
from qortex_db.messages import shown
from qortex_db.models.vector_spec import HNSW
from qortex_db.transfer.source import Page, SourceDescription, SourceReject, SourceVector
from qortex_db.transfer.sources.in_files.row_parts import RowParts
from qortex_db.transfer.sources.in_files.source import FileSource, opened, resolved

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from qortex_db.models.vector_spec import Metric, Storage
    from qortex_db.transfer.source import Position, SourceRow

_READ_ROWS: Final = 1_000
"""Rows that Arrow makes at a time: a group of a file's may have a million."""


async def open_source(
    location: str,
    collection: str | None,
    *,
    api_key: str | None,
    metric: Metric = "cosine",
    **parts: str,
) -> ParquetFiles:
    """A file, or a folder whose `.parquet` files have the same columns, read by their names.

    Args:
        metric: What its vectors are compared by, which a file does not say.
        parts: `id`, `embedding` and `document`, as `RowParts.found` takes them.
    """
    del api_key
    return await opened(collection, lambda: ParquetFiles(Path(location), metric, parts))


def _schema(files: Sequence[Path]) -> pa.Schema:
    found: pa.Schema | None = None
    for file in files:
        try:
            schema = pq.read_schema(file)
        except (pa.ArrowException, OSError) as error:
            raise InvalidInputError(f"{file} is no Parquet file.") from error
        if twice := {name for name in schema.names if schema.names.count(name) > 1}:
            raise InvalidInputError(
                f"{file} has several columns {', '.join(map(shown, sorted(twice)))}: name them "
                "differently, or only one would come."
            )
        if found is not None and schema.names != found.names:
            raise InvalidInputError(f"{file} has other columns than {files[0]}.")
        found = found or schema
    if found is None:
        raise NotFoundError("There is no Parquet file.")
    return found


class ParquetFiles(FileSource):
    """Parquet files, in the order of their names."""

    def __init__(self, path: Path, metric: Metric, parts: Mapping[str, str]) -> None:
        files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not files or not files[0].is_file():
            raise NotFoundError(f"There is no Parquet file {path}.")
        super().__init__(f"parquet {resolved(path)}")
        self._files = files
        self._metric = metric
        self._schema = _schema(files)
        self._parts = RowParts.found(tuple(self._schema.names), where=str(path), **parts)
        self._kept = [
            field.name
            for field in self._schema
            if field.name == self._parts.id or not _is_wordless(field.type)
        ]

    def read_description(self) -> SourceDescription:
        """By their schema, and their footers."""
        vectors = [self._vector(*each) for each in self._parts.names.items()]
        rows = sum(pq.read_metadata(file).num_rows for file in self._files)
        left_out = [
            f"The column {name} ({self._schema.field(name).type}) has no word in JSON."
            for name in self._schema.names
            if name not in self._kept
        ]
        return SourceDescription(rows, vectors, left_out=left_out)

    def _vector(self, name: str, called: str) -> SourceVector:
        kind = self._schema.field(name).type
        if pa.types.is_struct(kind):
            return SourceVector(called, None, "inner_product", "sparse", index=HNSW())
        fixed = pa.types.is_fixed_size_list(kind)
        if not (fixed or pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            raise InvalidInputError(f"The column {name} holds no lists of numbers.")
        storage: Storage = "half" if pa.types.is_float16(kind.value_type) else "full"
        size = kind.list_size if fixed else None
        return SourceVector(called, size, self._metric, storage, index=HNSW())

    def read_pages(self, after: Position, size: int) -> Iterator[Page]:
        """Rows, from one of a group of a file on."""
        rows: list[SourceRow] = []
        rejects: list[SourceReject] = []
        for place, number, of_file, given in self._rows(*(after or (0, 0, 0))):
            try:
                rows.append(self._parts.row(given, number))
            except InvalidInputError as error:
                rejects.append(
                    SourceReject(f"{self._files[place[0]].name} row {of_file}", str(error))
                )
            if len(rows) + len(rejects) == size:
                yield Page(rows, list(place), rejects)
                rows, rejects = [], []
        yield Page(rows, None, rejects)

    def _rows(
        self, start: int, group: int, done: int
    ) -> Iterator[tuple[tuple[int, int, int], int, int, dict[str, Any]]]:
        """Each row, after where it stands: the file, its group, how many of that are read.

        Then its number among all from 0 on, and among its file's from 1 on, as people count.
        """
        before = sum(pq.read_metadata(file).num_rows for file in self._files[:start])
        for at in range(start, len(self._files)):
            begun = before
            with pq.ParquetFile(self._files[at]) as file:
                for each in range(file.num_row_groups):
                    count = file.metadata.row_group(each).num_rows
                    if (at, each) >= (start, group):
                        skipped = done if (at, each) == (start, group) else 0
                        try:
                            for number, row in _of_group(file, each, skipped, self._kept):
                                place = before + number
                                yield (at, each, number + 1), place, place - begun + 1, row
                        except (pa.ArrowException, OSError, OverflowError, ValueError) as error:
                            raise InvalidInputError(
                                f"{self._files[at]}: its group {each} of rows is damaged, or has a "
                                f"value that Python can't hold ({type(error).__name__})."
                            ) from error
                    before += count


def _of_group(
    file: pq.ParquetFile, group: int, skipped: int, columns: Sequence[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a group, with their numbers in it."""
    number = 0
    for batch in file.iter_batches(_READ_ROWS, row_groups=[group]):
        if number + len(batch) > skipped:
            begin = max(0, skipped - number)
            rows = batch.slice(begin).select(columns).to_pylist()
            yield from enumerate(rows, number + begin)
        number += len(batch)


def _is_wordless(kind: pa.DataType) -> bool:
    """Whether JSON has no word for values of a type."""
    tests = (
        *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary),
        pa.types.is_duration,
    )
    return any(test(kind) for test in tests)
