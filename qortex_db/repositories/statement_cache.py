"""Statements that are built once for each form of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar
from typing import cast as cast_type

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from qortex_db.filters import Filter

MAX_STATEMENTS: Final = 1_024
"""How many forms of each are kept built, and for how many tables: filters' shapes, and which
columns a batch gives, are their users' data, and a program may make tables all the time."""

Build = TypeVar("Build", bound="Callable[..., Any]")


@dataclass(frozen=True, slots=True)
class _Narrowed:
    """A filter that equals others of its shape: their statements are one."""

    key: Hashable
    filter: Filter = field(compare=False)


def built_once(build: Build) -> Build:
    """Keep what is built for a table, the shape of a filter and a form."""

    @functools.lru_cache(MAX_STATEMENTS)
    def kept(owner: Hashable, narrowed: _Narrowed | None, *form: object) -> Any:
        return build(owner, None if narrowed is None else narrowed.filter, *form)

    @functools.wraps(build)
    def get(owner: Hashable, where: Filter | None, *form: object) -> Any:
        if where is None:
            return kept(owner, None, *form)
        if where.key is None:  # it holds an expression of SQLAlchemy's
            return build(owner, where, *form)
        return kept(owner, _Narrowed(where.key, where), *form)

    return cast_type("Build", get)
