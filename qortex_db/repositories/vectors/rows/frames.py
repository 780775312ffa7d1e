"""Data frames in and out: pandas', polars', Arrow's, by Arrow's own interface."""

from __future__ import annotations

import html
import importlib
import json
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from qortex_db.errors import InvalidInputError
from qortex_db.messages import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_ROWS: Final = 1_000
"""How many rows of a frame are Python's objects at a time."""
_SHOWN_ROWS: Final = 50
_SHOWN_CHARS: Final = 200
_INDEX: Final = "__index_level_"
"""What pandas calls an index without a name."""


@runtime_checkable
class Frame(Protocol):
    """A table of pandas, polars, pyarrow, or whatever else exports Arrow streams."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """A capsule with the stream."""
        ...


def records_of(
    frame: Frame, *, key: str, embedding: str | None, document: str | None
) -> Iterator[dict[str, Any]]:
    """A frame's rows as records: columns that are not named are keys of the payload.

    Raises:
        InvalidInputError: A column is not there, or pyarrow is not installed.
    """
    arrow = _library("pyarrow")
    reader = arrow.RecordBatchReader.from_stream(frame)
    columns = reader.schema.names
    for name in (key, embedding, document):
        if name is not None and name not in columns:
            raise InvalidInputError(
                f"The frame has no column {shown(name)}; its columns are "
                f"{', '.join(map(shown, columns))}."
            )
    rest = [
        name
        for name in columns
        if name not in (key, embedding, document) and not name.startswith(_INDEX)
    ]
    for batch in reader:
        for start in range(0, batch.num_rows, _ROWS):
            yield from _records(batch.slice(start, _ROWS), key, embedding, document, rest)


def _records(
    part: Any, key: str, embedding: str | None, document: str | None, rest: Sequence[str]
) -> Iterator[dict[str, Any]]:
    ids = part.column(key).to_pylist()
    payloads = part.select(rest).to_pylist()
    vectors = [None] * len(ids) if embedding is None else _vectors(part.column(embedding))
    documents = [None] * len(ids) if document is None else part.column(document).to_pylist()
    for id_, vector, text, payload in zip(ids, vectors, documents, payloads, strict=True):
        given = {name: value for name, value in payload.items() if value is not None}
        yield {"id": id_, "embedding": vector, "document": text, "payload": given}


def _vectors(column: Any) -> Sequence[Any]:
    """As one matrix where all are of one length."""
    numbers = column.flatten()
    even = column.null_count == 0 and numbers.null_count == 0 and len(column) > 0
    if even and len(set(column.value_lengths().to_pylist())) == 1:
        rows: Sequence[Any] = numbers.to_numpy(zero_copy_only=False).reshape(len(column), -1)
        return rows
    found: Sequence[Any] = column.to_pylist()
    return found


def columns_of(rows: Iterable[Any]) -> dict[str, list[Any]]:
    """What hits or records have, by columns: their own, then a payload's keys and attributes.

    A key that is also a column of its own is called `payload.…`.
    """
    rows = list(rows)
    own = [name for name in ("id", "score", "document", "embedding") if _has(rows, name)]
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in own}
    for source in ("payload", "attributes"):
        found: list[Mapping[str, Any]] = [getattr(row, source, None) or {} for row in rows]
        for name in dict.fromkeys(name for each in found for name in each):
            label = f"{source}.{name}" if name in columns else name
            columns[label] = [each.get(name) for each in found]
    return columns


def _has(rows: Sequence[Any], name: str) -> bool:
    always = name == "id" or (name == "score" and bool(rows) and hasattr(rows[0], name))
    return always or any(getattr(row, name, None) is not None for row in rows)


def to_pandas(rows: Iterable[Any]) -> Any:
    """A DataFrame of `columns_of`."""
    return _library("pandas").DataFrame(columns_of(rows))


def to_arrow(rows: Iterable[Any]) -> Any:
    """A table of `columns_of`.

    Raises:
        InvalidInputError: A column's values are of several types.
    """
    arrow = _library("pyarrow")
    made = {}
    for name, values in columns_of(rows).items():
        given, kind = values, None
        if name == "embedding":
            given = [None if value is None else value.tolist() for value in values]
            kind = arrow.list_(arrow.float32())
        try:
            made[name] = arrow.array(given, kind)
        except (arrow.ArrowInvalid, arrow.ArrowTypeError):  # they quote a value
            raise InvalidInputError(
                f"The values of {shown(name)} are of several types, which no column of Arrow's is."
            ) from None
    return arrow.table(made)


def to_html(rows: Sequence[Any]) -> str:
    """A table as notebooks show it, of the first rows and the beginnings of what they have."""
    own = [name for name in ("id", "score", "document", "payload") if _has(rows, name)]
    lines = ["<table>", f"<thead><tr>{''.join(f'<th>{name}</th>' for name in own)}</tr></thead>"]
    lines += [
        f"<tr>{''.join(f'<td>{_cell(getattr(row, name))}</td>' for name in own)}</tr>"
        for row in rows[:_SHOWN_ROWS]
    ]
    more = len(rows) - _SHOWN_ROWS
    return "\n".join([*lines, "</table>", f"<p>and {more:,} more</p>" if more > 0 else ""]).rstrip()


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    is_object = isinstance(value, dict)
    text = json.dumps(value, ensure_ascii=False, default=str) if is_object else str(value or "")
    return html.escape(text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…")


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InvalidInputError(
            f"{name} is not installed: pip install 'qortex-db[frames]'."
        ) from None
