"""Rows in a file of JSON, one object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from qortex_db.errors import InvalidInputError, NotFoundError
from qortex_db.models.vector_spec import HNSW
from qortex_db.transfer.source import (
    Page,
    SourceDescription,
    SourceReject,
    SourceVector,
)
from qortex_db.transfer.sources.in_files.row_parts import RowParts
from qortex_db.transfer.sources.in_files.source import FileSource, opened, resolved

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qortex_db.models.vector_spec import Metric
    from qortex_db.transfer.source import Position, SourceRow

MAX_LINE_BYTES: Final = 64 * 2**20


async def open_source(
    location: str,
    collection: str | None,
    *,
    api_key: str | None,
    metric: Metric = "cosine",
    **parts: str,
) -> JsonLines:
    """A file.

    Args:
        metric: What its vectors are compared by, which a file does not say.
        parts: `id`, `embedding` and `document`, as `RowParts.found` takes them.
    """
    del api_key
    return await opened(collection, lambda: JsonLines(Path(location), metric, parts))


def _first(path: Path) -> dict[str, Any]:
    """The first line that is an object."""
    with path.open("rb") as file:
        for *_, line in _lines(file):
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(found, dict):
                return found
    raise InvalidInputError(f"{path} has no line that is a JSON object.")


def numbered_lines(file: BinaryIO, number: int = 0) -> Iterator[tuple[int, bytes]]:
    """Each line that is not blank, with its own number from 1 on; one that is too long is empty."""
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            while (more := file.readline(MAX_LINE_BYTES)) and not more.endswith(b"\n"):
                pass
            yield number, b""
        elif line.strip():
            yield number, line


def _lines(file: BinaryIO, offset: int = 0, number: int = 0) -> Iterator[tuple[int, int, bytes]]:
    """The same, from a place in a file on, with where the next line begins."""
    file.seek(offset)
    for at, line in numbered_lines(file, number):
        yield file.tell(), at, line


class JsonLines(FileSource):
    """A file of JSON, one object a line."""

    def __init__(self, path: Path, metric: Metric, parts: Mapping[str, str]) -> None:
        if not path.is_file():
            raise NotFoundError(f"There is no file {path}.")
        super().__init__(f"jsonl {resolved(path)}")
        self._path = path
        self._metric = metric
        self._first = _first(path)
        self._parts = RowParts.found(tuple(self._first), where=str(path), **parts)

    def read_description(self) -> SourceDescription:
        """Its lines are counted; its vectors are those of the first one."""
        vectors = []
        for name, called in self._parts.names.items():
            first = self._first.get(name)
            if isinstance(first, dict):
                sparse = SourceVector(called, None, "inner_product", "sparse", index=HNSW())
                vectors.append(sparse)
            else:
                size = len(first) if isinstance(first, list) else None
                vectors.append(SourceVector(called, size, self._metric, index=HNSW()))
        with self._path.open("rb") as file:
            return SourceDescription(sum(1 for _ in _lines(file)), vectors)

    def read_pages(self, after: Position, size: int) -> Iterator[Page]:
        """Lines, from a place in the file on."""
        offset, number = after or (0, 0)
        rows: list[SourceRow] = []
        rejects: list[SourceReject] = []
        with self._path.open("rb") as file:
            for end, at, line in _lines(file, offset, number):
                try:
                    rows.append(self._row(line, at))
                except (ValueError, RecursionError) as error:
                    told = isinstance(error, InvalidInputError)
                    reason = str(error) if told else "It is no JSON."
                    rejects.append(SourceReject(f"line {at}", reason))
                if len(rows) + len(rejects) == size:
                    yield Page(rows, [end, at], rejects)
                    rows, rejects = [], []
        yield Page(rows, None, rejects)

    def _row(self, line: bytes, number: int) -> SourceRow:
        if not line:
            raise InvalidInputError(f"It is longer than {MAX_LINE_BYTES:,} bytes.")
        found = json.loads(line)
        if not isinstance(found, dict):
            raise InvalidInputError("It is no object.")
        return self._parts.row(found, number)
