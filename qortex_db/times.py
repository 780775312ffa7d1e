"""Times that are ISO 8601 strings whenever they are read."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

ClassT = TypeVar("ClassT", bound=type[Any])


def iso_when_read(name: str) -> Callable[[ClassT], ClassT]:
    """For a class with slots: that of a time takes a datetime too, and gives its string.

    Most times that a call returns are never looked at, and writing one takes longer than reading
    the rest of its row.
    """

    def decorate(owner: ClassT) -> ClassT:
        slot = owner.__dict__[name]

        def read(self: object) -> Any:
            value = slot.__get__(self)
            if isinstance(value, datetime):
                value = value.isoformat()
                slot.__set__(self, value)
            return value

        setattr(owner, name, property(read, slot.__set__, slot.__delete__))
        return owner

    return decorate
