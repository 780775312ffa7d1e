"""Methods that follow a changeover of their table's embeddings: each runs on what is true by then.

A repository is bound to a table as its model has it. While the table has the embeddings of two
models, its methods run on another repository, whose table has `vec` for those that are current.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from qortex_db.errors import (
    EmbeddingModelError,
    InFailedTransactionError,
    QortexDbError,
    SerializationConflictError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

AT_ONCE: Final = ("clause", "distance", "score")
"""Methods that ask no server, and follow what is known."""
NO_COLUMN: Final = "42703"
"""The SQLSTATE of a column that is not there: no longer, where a changeover has ended."""


def follow(owner: type[Any], *, without: tuple[str, ...] = ()) -> None:
    """Have the public methods of a class follow the changeover of their table."""
    for name, method in list(vars(owner).items()):
        if name.startswith("_") or name in without:
            continue
        if inspect.isasyncgenfunction(method):
            setattr(owner, name, _stream(method))
        elif inspect.iscoroutinefunction(method):
            setattr(owner, name, _call(method))
        elif name in AT_ONCE:
            setattr(owner, name, _at_once(method))


def _call(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def call(self: Any, *arguments: Any, **options: Any) -> Any:
        vectors = self._vectors
        if vectors.two_models is not None:
            return await method(self, *arguments, **options)
        facts = await vectors.facts()
        bound = self if facts.changeover is None else _bound(self, facts.changeover)
        try:
            return await method(bound, *arguments, **options)
        except QortexDbError as error:
            is_outdated = isinstance(error, EmbeddingModelError) or error.sqlstate == NO_COLUMN
            # What was read of an iterator can't be read again.
            if not is_outdated or any(map(_is_read_once, (*arguments, *options.values()))):
                raise
            anew = await _anew(vectors, facts.changeover, error)
        bound = self if anew is None else _bound(self, anew)
        return await method(bound, *arguments, **options)

    return call


def _stream(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def stream(self: Any, *arguments: Any, **options: Any) -> AsyncIterator[Any]:
        bound = self
        if self._vectors.two_models is None:
            facts = await self._vectors.facts()
            bound = self if facts.changeover is None else _bound(self, facts.changeover)
        async with aclosing(method(bound, *arguments, **options)) as rows:
            async for row in rows:
                yield row

    return stream


def _at_once(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        facts = None if self._vectors.two_models is not None else self._vectors.known_facts()
        if facts is None or facts.changeover is None:
            return method(self, *arguments, **options)
        return method(_bound(self, facts.changeover), *arguments, **options)

    return call


async def _anew(vectors: Any, changeover: Any, error: Any) -> Any:
    """The changeover as it is by now, where it is another than the one by which a call failed.

    Raises:
        QortexDbError: It is the same, or a transaction was aborted.
    """
    try:
        facts = await vectors.facts(anew=True)
    except InFailedTransactionError:
        vectors.forget_facts()
        if changeover is None or error.sqlstate != NO_COLUMN:
            raise error from None
        raise SerializationConflictError(
            "The embeddings of another model were dropped meanwhile: run the whole transaction "
            "again.",
            sqlstate=error.sqlstate,
        ) from error
    if facts.changeover == changeover:
        raise error
    return facts.changeover


def _is_read_once(given: object) -> bool:
    return isinstance(given, (Iterator, AsyncIterator))


def _bound(repository: Any, changeover: Any) -> Any:
    """A repository of the same kind over the table as it is in a changeover."""
    known = getattr(repository, "_followed", None)
    if known is not None and known[0] == changeover:
        return known[1]
    made = copy.copy(repository)
    made._vectors = repository._vectors.during(changeover)  # noqa: SLF001 - its own
    repository._followed = changeover, made  # noqa: SLF001 - kept with it
    return made
