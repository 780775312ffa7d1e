"""The keys of rows by the types of their columns: what is taken as one, and how it is sent."""

from __future__ import annotations

import functools
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

import sqlalchemy
from sqlalchemy import BigInteger, Integer, SmallInteger, Uuid

from qortex_db.checks import as_key, as_whole, check_text
from qortex_db.errors import InvalidInputError
from qortex_db.sql import Text, is_text, stored_type

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, FromClause
    from sqlalchemy.types import TypeEngine

MAX_ID_BYTES: Final = 1_024
"""The longest id, in bytes of UTF-8: three of them still fit into one B-tree entry."""


def check_id(value: object, *, name: str = "id") -> str:
    """A key: text of 1 to `MAX_ID_BYTES` bytes."""
    if as_whole(value) is not None or isinstance(value, UUID):
        raise InvalidInputError(f"{name} is a {type(value).__name__}; pass str(id).")
    text = check_text(value, name=name)
    if not text:
        raise InvalidInputError(f"{name} is empty.")
    # A character takes four bytes at most.
    if len(text) * 4 > MAX_ID_BYTES and (size := len(text.encode())) > MAX_ID_BYTES:
        raise InvalidInputError(f"{name} has {size} bytes; at most {MAX_ID_BYTES} are allowed.")
    return text


def all_plain(keys: Sequence[object]) -> bool:
    """Whether all are ids beyond doubt, by a few passes: short printable ASCII."""
    if not keys or set(map(type, keys)) != {str}:
        return not keys
    texts = cast("Sequence[str]", keys)
    joined = "".join(texts)
    return (
        joined.isascii()
        and joined.isprintable()
        and all(texts)
        and (len(joined) <= MAX_ID_BYTES or max(map(len, texts)) <= MAX_ID_BYTES)
    )


class TextKey:
    """Keys of text and varchar: an int or a UUID is taken as its text."""

    type: TypeEngine[Any] = Text()
    least: Any = ""
    """What is before all keys; None where nothing is."""
    is_composite = False
    """Whether what is sent is another thing than what a caller has."""

    def check(self, value: object, *, name: str = "id") -> Any:
        """A key as it is sent.

        Raises:
            InvalidInputError: It is none.
        """
        key = value if type(value) is str else as_key(value)
        if as_whole(key) is not None:
            raise InvalidInputError(f"{name} has more than {MAX_ID_BYTES:,} digits.")
        return check_id(key, name=name)

    def all_plain(self, values: Sequence[object]) -> bool:
        """Whether all are beyond doubt, and as they are sent."""
        return all_plain(values)

    def is_key(self, value: object) -> bool:
        """Whether it may be a key, and is no embedding."""
        return isinstance(as_key(value), str)

    def sql_text(self, key: ColumnElement[Any]) -> ColumnElement[Any]:
        """A key of the server's as `str` has it of one that is sent."""
        return key

    def check_cursor(self, value: object) -> Any:
        """A key in a page's `next`, where it is as it was sent."""
        return check_id(value)

    def read(self, sent: Any) -> Any:
        """What a caller has of a key that was sent or read."""
        return sent

    def order(self, sent: Any) -> Any:
        """What Python sorts as the server does."""
        return sent

    def apart(self, sent: ColumnElement[Any]) -> list[ColumnElement[Any]]:
        """The values of the key's columns in one that is sent."""
        return [sent]


class IntegerKey(TextKey):
    """Keys of smallint, integer and bigint."""

    least = None

    def __init__(self, kind: TypeEngine[Any], bits: int) -> None:
        self.type = kind
        self._bits: int = bits

    def check(self, value: object, *, name: str = "id") -> Any:
        number = as_whole(value)
        if number is None:
            raise InvalidInputError(f"{name} is a {type(value).__name__}; pass an int.")
        if not -(2**self._bits) <= number < 2**self._bits:
            raise InvalidInputError(f"{name} does not fit into the key's {self._bits + 1} bits.")
        return number

    def check_cursor(self, value: object) -> Any:
        return self.check(value)

    def all_plain(self, values: Sequence[object]) -> bool:
        if set(map(type, values)) != {int}:
            return not values
        numbers = cast("Sequence[int]", values)
        bound: int = 2**self._bits
        return min(numbers) >= -bound and max(numbers) < bound

    def is_key(self, value: object) -> bool:
        return isinstance(value, str) or as_whole(value) is not None

    def sql_text(self, key: ColumnElement[Any]) -> ColumnElement[Any]:
        return sqlalchemy.cast(key, Text)


class UuidKey(TextKey):
    """Keys of uuid; the text of one is taken too."""

    least = None

    def __init__(self, kind: Uuid[Any]) -> None:
        self._made: type[UUID | str] = UUID if kind.as_uuid else str
        self.type = kind

    def check(self, value: object, *, name: str = "id") -> Any:
        if isinstance(value, str):
            with suppress(ValueError):  # it quotes the text
                value = UUID(value)
        if not isinstance(value, UUID):
            what = "no UUID" if isinstance(value, str) else f"a {type(value).__name__}"
            raise InvalidInputError(f"{name} is {what}; pass one, or its text.")
        return value if self._made is UUID else str(value)

    def check_cursor(self, value: object) -> Any:
        return self.check(value)

    def all_plain(self, values: Sequence[object]) -> bool:
        return self._made is UUID and set(map(type, values)) <= {UUID}

    def is_key(self, value: object) -> bool:
        return isinstance(value, str | UUID)

    def sql_text(self, key: ColumnElement[Any]) -> ColumnElement[Any]:
        return sqlalchemy.cast(key, Text)


KeyType = TextKey
"""What keys of some type are; those of text are what the others differ from."""

_INTEGERS: Final = (SmallInteger(), 15), (BigInteger(), 63), (Integer(), 31)
"""Subclasses first, and the bits beside the sign."""
_TEXT: Final = TextKey()


def key_of(table: FromClause) -> ColumnElement[Any]:
    """The key of a table, to be selected: called `id`, as no other part of a statement is."""
    key = table.c.id
    return key if key.name == "id" else key.label("id")


def key_type(table: FromClause) -> KeyType:
    """What the keys of a table are.

    Raises:
        InvalidInputError: They are of a type that no keys are of here.
    """
    return key_kind(table.c.id)


def key_columns(table: FromClause) -> list[ColumnElement[Any]]:
    """The columns of a table's key, or of rows that were selected from it: to order by."""
    key = table.c.id
    parts = getattr(key, "parts", None)
    return key_type(table).apart(key) if parts is None else list(parts)


def key_kind(column: ColumnElement[Any]) -> KeyType:
    """What the keys of a column are.

    Raises:
        InvalidInputError: They are of a type that no keys are of here.
    """
    found = getattr(column.type, "key", None) or _key_type(column.type)
    if found is None:
        raise InvalidInputError(
            f"{column} is {stored_type(column.type)}: the key of a collection is text, "
            "varchar, uuid, smallint, integer or bigint."
        )
    return found


@functools.lru_cache(256)
def _key_type(kind: TypeEngine[Any]) -> KeyType | None:
    stored = stored_type(kind)
    if isinstance(stored, Uuid):
        return UuidKey(stored)
    for known, bits in _INTEGERS:
        if isinstance(stored, type(known)):
            return IntegerKey(known, bits)
    return _TEXT if is_text(kind) else None
