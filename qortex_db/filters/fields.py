"""Where a payload keeps its values: paths, and the expressions that filters and indexes share.

An expression index serves a filter only where both say exactly the same, path included, so a path
is a quoted literal of the statement; every value is bound.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Boolean, Numeric, column
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.elements import quoted_name

from qortex_db import messages
from qortex_db.checks import check_text
from qortex_db.errors import InvalidInputError
from qortex_db.filters.expressions import Constant, ShownCase
from qortex_db.filters.instants import instant
from qortex_db.sql import Text, as_jsonb, func

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, FromClause
    from sqlalchemy.sql.selectable import LateralFromClause

MAX_PATH_CHARS: Final = 256
"""The longest path, dots included."""
ENCRYPTED: Final = "qortex_db_encrypted"
"""The key of a table's info with the keys of its payloads that are stored encrypted; None among
them is the document."""
MAX_INDEXED_CHARS: Final = 200
"""How much of a string the keyword index holds: an entry of a B-tree has to stay below 2,704 bytes,
or the row could not be inserted. Comparing with a shorter value needs no more than that."""

# Python's own reading of a step has to be strtol's, by which the server tells a position.
_POSITION = re.compile(r"[ \t\n\v\f\r]*[+-]?[0-9]+")
_STEP = re.compile(r"(?:\\[.$\[\\]|[^.\\\[]|\[(?!\]))+")
_EACH = re.compile(r"((?:\\.|[^\\\[]|\[(?!\]))*)\[\](?:\.(?=.)|(?=\[\])|\Z)", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
# What a cast calls: the server shows a call as it was written.
_NUMERIC: Any = getattr(func, quoted_name("numeric", quote=True))
_BOOL: Any = func.bool


@dataclass(frozen=True, slots=True)
class Path:
    """The steps from a payload to a value.

    Attributes:
        steps: Keys; one that reads as a whole number is a position where it meets an array.
        positional: Whether a step may be a position, which containment can't say.
        before: The JSON that leads from a payload to the value.
        after: What closes it.
        within: Whether it begins at an element of an array, and not at the payload.
    """

    steps: tuple[str, ...]
    positional: bool
    before: str
    after: str
    within: bool = False

    def around(self, value: str) -> str:
        """A payload, as JSON, that holds nothing but this value."""
        return f"{self.before}{value}{self.after}"


def is_position(step: str) -> bool:
    """Whether a step of a path is an element's place where it meets an array."""
    return _POSITION.fullmatch(step) is not None


ITSELF: Final = Path((), positional=True, before="", after="", within=True)
"""The path from an element of an array to that element: containment would say less than equality,
for an array contains what is one of its elements."""


def of_each(text: str) -> tuple[str, str] | None:
    """A path up to its first `[]`, and what is behind that; None where it has none."""
    found = _EACH.match(text)
    return None if found is None else (found[1], text[found.end() :])


@functools.lru_cache(maxsize=4096)
def read_path(text: str, *, within: bool = False) -> Path:
    r"""The path that a string names: keys with dots between them, `\.` for a dot in a key.

    Args:
        within: Whether it begins at an element of an array.

    Raises:
        InvalidInputError: It is empty, too long, or has an empty key or a stray backslash.
    """
    if within and not text:
        return ITSELF
    at = f"The path {messages.shown(text, MAX_PATH_CHARS)}"
    if len(text) > MAX_PATH_CHARS:
        raise InvalidInputError(
            f"{at} has {len(text)} characters; at most {MAX_PATH_CHARS} are allowed."
        )
    check_text(text, name=at)
    steps = []
    end = -1
    while end < len(text):
        found = _STEP.match(text, end + 1)
        if found is None or text[found.end() : found.end() + 1] not in ("", "."):
            raise InvalidInputError(
                f"{at} has an empty key, a stray backslash or a [] that is not in a filter or not "
                "behind a key; keys are joined by single dots, and a key's own dot, backslash, "
                r"first dollar or [] is written \., \\, \$ or \[]."
            )
        steps.append(_ESCAPE.sub(r"\1", found[0]))
        end = found.end()
    return Path(
        tuple(steps),
        any(map(is_position, steps)),
        "".join(f"{{{encode_basestring(step)}:" for step in steps),
        "}" * len(steps),
        within,
    )


def check_readable(table: FromClause, key: str | None, at: str) -> None:
    """Refuse what looks into an encrypted value; a key of None is the document.

    Raises:
        InvalidInputError: It does.
    """
    if key in getattr(table, "info", {}).get(ENCRYPTED, ()):  # an alias has none
        what = "The document" if key is None else f"payload[{messages.shown(key)}]"
        raise InvalidInputError(
            f"{messages.escaped(at, 200)} looks into what is stored encrypted. {what} comes back "
            "decrypted, but the server can't compare it."
        )


def check_has_payload(table: FromClause, at: str) -> None:
    """Refuse what looks into the payload of a table that has none.

    Raises:
        InvalidInputError: It does.
    """
    if "payload" not in table.c:
        raise InvalidInputError(
            f"{messages.escaped(at, 200)} looks into a payload, and the table {_name(table)} has "
            "none."
        )


def _name(table: FromClause) -> str:
    return str(getattr(table, "name", ""))


class Field:
    """The value at a path of a table's payload, as SQL. What is of another type is NULL.

    Args:
        within: In the place of the payload, an element of an array.
    """

    def __init__(
        self, table: FromClause, steps: tuple[str, ...], within: ColumnElement[Any] | None = None
    ) -> None:
        self.table = table
        self.within = within
        self.payload = as_jsonb(table.c.payload) if within is None else within
        self.steps = steps
        self._path = Constant(steps)

    def child(self, key: str) -> Field:
        return Field(self.table, (*self.steps, key), self.within)

    @property
    def json(self) -> ColumnElement[Any]:
        """Whatever it is; NULL where the key is missing, JSON's null where it is null."""
        return self.payload.op("#>", return_type=JSONB())(self._path)

    @property
    def kind(self) -> ColumnElement[str]:
        return func.jsonb_typeof(self.json)

    # Every cast is behind a CASE, which is never reordered: mixed data can't make one fail.
    def _where(self, kind: str, value: ColumnElement[Any]) -> ColumnElement[Any]:
        return ShownCase((self.kind == Constant(kind), value))

    @property
    def string(self) -> ColumnElement[str]:
        text = self.payload.op("#>>", return_type=Text())(self._path)
        return self._where("string", text)

    @property
    def keyword(self) -> ColumnElement[str]:
        """The beginning of a string, by code point."""
        return func.left(self.string.collate("C"), Constant(MAX_INDEXED_CHARS), type_=Text())

    @property
    def number(self) -> ColumnElement[Any]:
        """Exact: a float8 or bigint could overflow."""
        return self._where("number", _NUMERIC(self.json, type_=Numeric()))

    @property
    def boolean(self) -> ColumnElement[bool]:
        return self._where("boolean", _BOOL(self.json, type_=Boolean()))

    @property
    def instant(self) -> ColumnElement[Any]:
        """The moment that a string tells, in UTC."""
        return instant(self.payload.op("#>>", return_type=Text())(self._path))

    @property
    def elements(self) -> ColumnElement[Any]:
        """The elements of an array."""
        return self._where("array", self.json)

    def each(self, name: str) -> LateralFromClause:
        """The elements of an array, or the value itself, as rows with a column `value`.

        A missing key has none.
        """
        itself = ShownCase((self.json.is_not(None), func.jsonb_build_array(self.json)))
        elements = func.jsonb_array_elements(func.coalesce(self.elements, itself))
        return elements.table_valued(column("value", JSONB())).lateral(f"_{name}")
