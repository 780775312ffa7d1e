"""Statements that are built once for each form of them, never with a value, within some memory."""

from __future__ import annotations

import functools
from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypeVar
from typing import cast as cast_type

from sqlalchemy import BindParameter
from sqlalchemy.sql import visitors
from sqlalchemy.util import LRUCache

from qortex_db.engine import COMPILED
from qortex_db.filters import Filter

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from sqlalchemy import Executable

MAX_TABLES: Final = 256
"""For how many tables it is kept how they are read and written: a program may make tables all the
time."""
MAX_BYTES: Final = 20 * 2**20
"""What all statements that are kept take, about: filters' shapes, and which columns a batch gives,
are their users' data."""
_PART_BYTES: Final = 1_400
"""What a part of a statement takes, with what it is compiled to in both lanes."""
_ENGINES: Final = 4
"""For how many engines a statement is kept compiled."""
_MAX_VALUES: Final = 2**16
"""The size of the values in an expression of a host's with which SQLAlchemy may keep it."""

Build = TypeVar("Build", bound="Callable[..., Any]")


class StatementCache:
    """What was built, the least recently used first, within `MAX_BYTES`."""

    def __init__(self) -> None:
        self.bytes = 0
        self._kept: OrderedDict[Hashable, tuple[Executable, int]] = OrderedDict()
        self._changing = Lock()

    def get(self, key: Hashable) -> Executable | None:
        """A statement; None where it has to be built."""
        found = self._kept.get(key)
        if found is None:
            return None
        with self._changing:
            if key in self._kept:  # another thread may have just dropped it
                self._kept.move_to_end(key)
        return found[0]

    def keep(self, key: Hashable, statement: Executable) -> Executable:
        """Keep a statement, and what SQLAlchemy compiles it to, in the place of older ones."""
        statement = statement.execution_options(**{COMPILED: LRUCache(_ENGINES)})
        size = _PART_BYTES * _parts(statement)
        with self._changing:
            if key not in self._kept:
                self._kept[key] = statement, size
                self.bytes += size
            while self.bytes > MAX_BYTES:
                _, (_, dropped) = self._kept.popitem(last=False)
                self.bytes -= dropped
        return statement


STATEMENTS: Final = StatementCache()


def built_once(build: Build) -> Build:
    """Keep what is built for an owner and a form, which may begin with a filter: by its shape."""

    @functools.wraps(build)
    def get(owner: Hashable, *form: Any) -> Any:
        where = form[0] if form else None
        if not isinstance(where, Filter):
            key: Hashable = (build, owner, *form)
        elif where.key is not None:
            key = (build, owner, where.key, *form[1:])
        else:  # it holds an expression of SQLAlchemy's
            statement = build(owner, *form)
            large = _size_of_values(where) > _MAX_VALUES
            return statement.execution_options(**{COMPILED: None}) if large else statement
        found = STATEMENTS.get(key)
        return STATEMENTS.keep(key, build(owner, *form)) if found is None else found

    return cast_type("Build", get)


def _parts(statement: Any) -> int:
    """Of how many elements a statement is made."""
    seen = {id(statement): statement}
    waiting = [statement]
    while waiting:
        for part in waiting.pop().get_children():
            if id(part) not in seen:
                seen[id(part)] = part
                waiting.append(part)
    return len(seen)


def _size_of_values(where: Filter) -> int:
    """About how many bytes the values in a filter's expressions take."""
    parts = visitors.iterate(where.clause)
    return sum(_size(part.value) for part in parts if isinstance(part, BindParameter))


def _size(value: Any) -> int:
    if isinstance(value, (str, bytes)):
        return len(value)
    return sum(map(_size, value)) if isinstance(value, (list, tuple, set, frozenset)) else 8
