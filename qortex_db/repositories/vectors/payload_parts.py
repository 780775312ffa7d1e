"""Parts of payloads: what is read of a row's payload where a caller names the paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sqlalchemy import case, literal_column
from sqlalchemy.dialects.postgresql import JSONB

from qortex_db import checks
from qortex_db.errors import InvalidInputError
from qortex_db.filters import check_readable, read_path
from qortex_db.filters.expressions import Constant
from qortex_db.sql import func

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Table

MAX_PARTS: Final = 64
"""The most paths of one `with_payload`."""
DOCUMENT: Final = "$document"
"""Names the document among the paths."""

WithPayload: TypeAlias = "bool | Sequence[str]"
"""All of payloads, none, or what is at some paths."""


@dataclass(frozen=True, slots=True)
class PayloadParts:
    """What is read of a row's body.

    Attributes:
        paths: The keys that lead to each part, in order; a path inside another is left out.
    """

    paths: tuple[tuple[str, ...], ...]
    with_document: bool


Body: TypeAlias = bool | PayloadParts
"""Whether payload, document and attributes are read, or which parts."""


def has_document(body: Body) -> bool:
    """Whether the document is read."""
    return body.with_document if isinstance(body, PayloadParts) else body


def read_body(table: Table, given: object) -> Body:
    """What a caller says by `with_payload`.

    Raises:
        InvalidInputError: It is neither True, False, nor a list of paths that can be read.
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
    steps = set()
    for i, path in enumerate(given):
        at = f"with_payload[{i}]"
        checks.check_text(path, name=at)
        if path == DOCUMENT:
            continue
        if "payload" not in table.c:
            raise InvalidInputError(f"The table {table.name} has no column payload.")
        read = read_path(path).steps
        if len(read) > 1:
            check_readable(table, read[0], at)
        steps.add(read)
    outer = [path for path in steps if not any(path[:i] in steps for i in range(1, len(path)))]
    return PayloadParts(tuple(sorted(outer)), DOCUMENT in given)


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
