"""Parts of payloads: what is read of a row's payload where a caller names the paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sqlalchemy import Column, ColumnElement, case, literal_column
from sqlalchemy.dialects.postgresql import JSONB

from qortex_db import checks
from qortex_db.errors import InvalidInputError
from qortex_db.filters import check_readable, read_path
from qortex_db.filters.columns import column_named, no_column
from qortex_db.filters.expressions import Constant
from qortex_db.messages import shown
from qortex_db.mirrors import moved, original_of
from qortex_db.sql import func
from qortex_db.types import Embedding, HalfEmbedding, SparseEmbedding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Table
    from sqlalchemy.orm import InstrumentedAttribute

MAX_PARTS: Final = 64
"""The most paths of one `with_payload`."""
DOCUMENT: Final = "$document"
"""Names the document among the paths."""

Part: TypeAlias = (
    "str | Mapping[str, str | Sequence[str]] | ColumnElement[Any] | InstrumentedAttribute[Any]"
)
"""A path into payloads, or a column of the host's own: by its name, or as `Model.price`. A dict of
`$column` or `$payload`, of a name or a list of them, says which."""
WithPayload: TypeAlias = "bool | Sequence[Part]"
"""All of payloads, none, or some parts and columns."""


@dataclass(frozen=True, slots=True)
class PayloadParts:
    """What is read of a row's body.

    Attributes:
        paths: The keys that lead to each part, in order; a path inside another is left out.
        columns: The names of columns, in order, with their keys.
    """

    paths: tuple[tuple[str, ...], ...]
    with_document: bool
    columns: tuple[tuple[str, str], ...] = ()


Body: TypeAlias = bool | PayloadParts
"""Whether payload, document and attributes are read, or which parts."""


def has_document(body: Body) -> bool:
    """Whether the document is read."""
    return body.with_document if isinstance(body, PayloadParts) else body


def columns_of(body: Body) -> tuple[tuple[str, str], ...]:
    """The columns that are read beside, each by its name and key."""
    return body.columns if isinstance(body, PayloadParts) else ()


def read_body(table: Table, given: object, own: Mapping[str, str]) -> Body:
    """What a caller says by `with_payload`.

    Args:
        own: By the names that a caller has for them, the keys of the host's own columns.

    Raises:
        InvalidInputError: It is neither True, False, nor a list of what can be read.
    """
    if type(given) is bool:
        return given
    if not isinstance(given, (list, tuple)):
        kind = type(given).__name__
        raise InvalidInputError(
            f"with_payload is a {kind}; pass True, False, or a list of the paths to return."
        )
    if len(given) > MAX_PARTS:
        raise InvalidInputError(f"with_payload has {len(given)} paths; at most {MAX_PARTS} fit.")
    reader = _Reader(table, own)
    for i, part in enumerate(given):
        reader.read(part, f"with_payload[{i}]")
    steps = reader.steps
    outer = [path for path in steps if not any(path[:i] in steps for i in range(1, len(path)))]
    both = sorted({path[0] for path in outer} & reader.columns.keys())
    if both:
        raise InvalidInputError(
            f"with_payload names {shown(both[0])} twice, in the payload and as a column: only one "
            "can have its place."
        )
    return PayloadParts(
        tuple(sorted(outer)), reader.with_document, tuple(sorted(reader.columns.items()))
    )


class _Reader:
    """Collects what a caller lists."""

    def __init__(self, table: Table, own: Mapping[str, str]) -> None:
        self.table = table
        self.own = own
        self.steps: set[tuple[str, ...]] = set()
        self.columns: dict[str, str] = {}
        self.with_document = False

    def read(self, part: Any, at: str) -> None:
        element = part.__clause_element__() if hasattr(part, "__clause_element__") else part
        if isinstance(element, ColumnElement):
            column = moved(element, original_of(self.table), self.table)
            if not (isinstance(column, Column) and column.table is self.table):
                raise InvalidInputError(f"{at} is no column of {self.table.name}.")
            self._add(column, at)
        elif isinstance(part, Mapping):
            self._said(part, at)
        elif checks.check_text(part, name=at) == DOCUMENT:
            self.with_document = True
        elif part in self.own:
            self._add(self.table.c[self.own[part]], at)
        else:
            self._path(part, at)

    def _said(self, part: Mapping[Any, Any], at: str) -> None:
        """Names that are said to be columns, or paths of the payload."""
        if not part or not part.keys() <= {"$column", "$payload"}:
            raise InvalidInputError(f"{at} takes a dict of $column and $payload.")
        for kind, named in part.items():
            names = named if isinstance(named, (list, tuple)) else [named]
            for name in names:
                checks.check_text(name, name=f"{at}[{kind!r}]")
                if kind == "$column":
                    self._add(column_named(self.table, name, at), at)
                else:
                    self._path(name, at)

    def _add(self, column: Column[Any], at: str) -> None:
        if column.key in _OTHERWISE or isinstance(column.type, _VECTORS):
            how = _OTHERWISE.get(column.key, "with_embedding")
            raise InvalidInputError(f"{at} is the column {column.name}; ask for it by {how}.")
        self.columns[column.name] = column.key

    def _path(self, path: str, at: str) -> None:
        if "payload" not in self.table.c:
            raise no_column(self.table, path, self.own)
        read = read_path(path).steps
        if len(read) > 1:
            check_readable(self.table, read[0], at)
        self.steps.add(read)


_OTHERWISE: Final = {"payload": "its keys", "document": '"$document"'}
_VECTORS: Final = (Embedding, HalfEmbedding, SparseEmbedding)


def payload_parts(payload: ColumnElement[Any], parts: PayloadParts) -> ColumnElement[Any]:
    """A payload with no more than what is at some paths; what is missing there is left out."""
    return _object(payload, parts.paths)


def _object(value: ColumnElement[Any], paths: Sequence[tuple[str, ...]]) -> ColumnElement[Any]:
    made: ColumnElement[Any] = literal_column("'{}'::jsonb", JSONB)
    below: dict[str, list[tuple[str, ...]]] = {}
    for path in paths:
        below.setdefault(path[0], []).append(path[1:])
    for key, rest in below.items():
        found: ColumnElement[Any] = func.jsonb_object_field(value, Constant(key), type_=JSONB())
        there: ColumnElement[bool] = found.is_not(None)
        part = found
        if rest != [()]:
            there, part = func.jsonb_typeof(found) == Constant("object"), _object(found, rest)
        one = func.jsonb_build_object(Constant(key), part, type_=JSONB())
        empty = literal_column("'{}'::jsonb", JSONB)
        made = made.op("||", return_type=JSONB())(case((there, one), else_=empty))
    return made
