"""A driver's connection, borrowed from a pool: at once where nothing has to be awaited for that.

SQLAlchemy's pool awaits inside of a greenlet, and puts a proxy around each connection that resets
it in the end: both together cost more than a read by key. Where a connection lies ready, and nobody
but us listens to the pool, the pool's own entry is borrowed.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import AsyncAdaptedQueuePool
from sqlalchemy.util import greenlet_spawn

from qortex_db.engine.connections.engines import LISTENERS, is_ready
from qortex_db.engine.connections.pool import FairPool
from qortex_db.observability.statement_spans import is_of_spans
from qortex_db.translation import is_connection_lost

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Engine

    from qortex_db.engine.connections.cleanup import Cleanup

_POOLS: Final = (FairPool, AsyncAdaptedQueuePool)
"""Those of which it is known when they await; a subclass may do so anywhere."""
_AS_IT_IS: Final = (None, "autocommit", "read_committed")
"""The driver's words for isolation levels of which a statement by itself needs no BEGIN."""


class UnsentError(Exception):
    """No connection could be had: nothing reached the server, so anything may be repeated."""


class Lease:
    """A connection that is in use; whoever has it ends it, by `give_back` or `end`.

    A fresh or returned connection is in no transaction: SQLAlchemy begins one at its cursor's first
    statement. So a statement that the driver runs by itself is its own transaction, unless a host's
    hook used a cursor at connect or checkout.

    Attributes:
        driver: The driver's connection.
    """

    __slots__ = ("_begun", "_connection", "_entry", "_pool", "_proxy", "driver")

    def __init__(self, pool: Any, entry: Any = None, proxy: Any = None) -> None:
        self._begun = False
        self._pool = pool
        self._entry = entry
        self._proxy = proxy
        self._connection: Any = (proxy or entry).dbapi_connection
        self.driver: Any = self._connection.driver_connection

    @classmethod
    def at_once(cls, engine: Engine, known: Mapping[object, Any]) -> Lease | None:
        """One that lies ready; None where something has to be awaited.

        Args:
            known: Of the engine's database.
        """
        pool: Any = engine.pool
        if not lends_at_once(pool, known):
            return None
        # No public name, here and below.
        taken = pool.take if type(pool) is FairPool else pool._pool.get_nowait  # noqa: SLF001
        return cls._of(pool, taken(), known)

    @classmethod
    async def waited_for(cls, engine: Engine, known: Mapping[object, Any]) -> Lease:
        """One that has to be waited for, or that SQLAlchemy checks out.

        Raises:
            UnsentError: None could be had.
        """
        pool: Any = engine.pool
        try:
            if type(pool) is not FairPool or not pool.is_full():
                return cls(pool, proxy=await greenlet_spawn(engine.raw_connection))
            entry = await pool.turn()
            if entry is None:
                return cls(pool, proxy=await greenlet_spawn(engine.raw_connection))
            if is_lendable(pool, entry, known):
                return cls._of(pool, entry, known)
            return cls(pool, proxy=await greenlet_spawn(_handed_over, pool, entry))
        except Exception as error:
            raise UnsentError from error

    @classmethod
    def _of(cls, pool: Any, entry: Any, known: Mapping[object, Any]) -> Lease:
        lease = cls(pool, entry)
        if len(pool.dispatch.checkout) > len(known[LISTENERS]["checkout"]):
            try:
                pool.dispatch.checkout(lease._connection, entry, None)
            except BaseException:
                entry.checkin(False)  # noqa: FBT003 - it had no proxy
                raise
        return lease

    def has_modes(self) -> bool:
        """Whether the engine says what its transactions are."""
        return bool(transaction_modes(self._connection))

    async def begin(self, statement: str) -> None:
        """Begin a transaction where something has to be set for it, or the engine wants one.

        Args:
            statement: In one round trip with BEGIN, so without parameters; "" for nothing.
        """
        modes = transaction_modes(self._connection)
        if not statement and not modes:
            return
        self._begun = not self.driver.is_in_transaction()
        parts = (f"BEGIN {modes}" if self._begun else "", statement)
        try:
            await self.driver.execute("; ".join(filter(None, parts)))
        except Exception as error:
            if is_connection_lost(error):
                raise UnsentError from error
            raise

    async def commit(self) -> None:
        """End what was begun, by a hook too: the pool would roll it back, and our write with it."""
        if self._begun:
            await self.driver.execute("COMMIT")
            self._begun = False
        elif self.driver.is_in_transaction():
            await greenlet_spawn(self._connection.commit)

    def can_be_handed_on(self, engine: Engine, known: Mapping[object, Any]) -> bool:
        """Whether another call may have it as it is, as if it had been returned and taken again."""
        entry = self._entry if self._proxy is None else self._proxy._connection_record  # noqa: SLF001
        return (
            self._pool is engine.pool
            and type(self._pool) in _POOLS
            and is_lendable(self._pool, entry, known)
            and _is_quiet(self._pool, "checkin", known)
        )

    def is_returned(self, known: Mapping[object, Any]) -> bool:
        """Give it back, if nothing has to be awaited for that."""
        if self._proxy is not None or not takes_at_once(self._pool, known):
            return False
        self._entry.checkin(False)  # noqa: FBT003 - it had no proxy
        return True

    async def give_back(self) -> None:
        if self._proxy is not None:
            await greenlet_spawn(self._proxy.close)
        else:
            await greenlet_spawn(self._entry.checkin, False)  # noqa: FBT003 - it had no proxy

    async def end(self, error: BaseException, cleanup: Cleanup) -> None:
        """Give it back after an error; what may still be busy is closed, and the server stops."""
        if isinstance(error, GeneratorExit):  # nothing can be awaited any more
            self.driver.terminate()  # which the next checkout sees
            if self._proxy is None:
                self._entry.checkin(False)  # noqa: FBT003 - it had no proxy
        elif not isinstance(error, Exception):
            with suppress(asyncio.CancelledError):  # what is on its way goes on
                await cleanup.wait_for(self._closed(), at_once=True)
        else:  # in a task, or a cancellation meanwhile would leave it with nobody
            await cleanup.wait_for(self._undone(error), at_once=False)

    async def _closed(self) -> None:
        # The pool would log why, with what an error quotes.
        if self._proxy is not None:
            await greenlet_spawn(self._proxy.invalidate)
        else:
            await greenlet_spawn(_end_entry, self._entry)

    async def _undone(self, error: BaseException) -> None:
        """Roll back what was begun, which the pool does not know of, and give it back."""
        if is_connection_lost(error):
            await self._closed()
            return
        try:
            if self._begun:
                await self.driver.execute("ROLLBACK")
            elif self.driver.is_in_transaction():  # a hook's
                await greenlet_spawn(self._connection.rollback)
        except Exception:  # noqa: BLE001 - there is another error to tell
            await self._closed()
        else:
            await self.give_back()


def lends_at_once(pool: Any, known: Mapping[object, Any]) -> bool:
    """Whether a pool has a connection whose checkout awaits nothing.

    Args:
        known: Of the database of the pool's engine.
    """
    kind = type(pool)
    if kind not in _POOLS:
        return False
    queue = pool._pool  # noqa: SLF001
    idle = queue.idle if kind is FairPool else queue._queue._queue  # noqa: SLF001
    if not idle:
        return False
    return is_lendable(pool, idle[-1] if queue.use_lifo else idle[0], known)


def is_lendable(pool: Any, entry: Any, known: Mapping[object, Any]) -> bool:
    """Whether the checkout of a pool's entry awaits nothing."""
    return bool(
        is_ready(entry, known)
        and not entry._is_hard_or_soft_invalidated()  # noqa: SLF001
        and _is_quiet(pool, "checkout", known)
        and not pool.dispatch.reset  # which is for proxies alone
        and not pool._pre_ping  # noqa: SLF001
        and not pool._should_log_debug()  # noqa: SLF001
        and (pool._recycle < 0 or time.time() - entry.starttime <= pool._recycle)  # noqa: SLF001
    )


def takes_at_once(pool: Any, known: Mapping[object, Any]) -> bool:
    """Whether a pool takes a connection back without awaiting anything."""
    return (
        type(pool) in _POOLS
        and not pool._pool.full()  # noqa: SLF001
        and _is_quiet(pool, "checkin", known)
        and not pool.dispatch.reset
    )


def _is_quiet(pool: Any, name: str, known: Mapping[object, Any]) -> bool:
    """Whether nobody listens who may await, or ask for the pool's proxy."""
    heard, ours = getattr(pool.dispatch, name), known[LISTENERS][name]
    return len(heard) == len(ours) or all(each in ours or is_of_spans(each) for each in heard)


def _handed_over(pool: FairPool, entry: Any) -> Any:
    pool.hand_over(entry)
    return pool.connect()


def _end_entry(entry: Any) -> None:
    try:
        entry.invalidate()
    finally:
        entry.checkin(False)  # noqa: FBT003 - it had no proxy


def transaction_modes(connection: Any) -> str:
    """What transactions of SQLAlchemy's connection begin with that is not as a server has it.

    "" where a statement that is its own transaction means the same as one between BEGIN and COMMIT.
    """
    level = connection.isolation_level
    modes = []
    if level not in _AS_IT_IS:
        modes.append(f"ISOLATION LEVEL {level.replace('_', ' ').upper()}")
    if connection.readonly:
        modes.append("READ ONLY")
    if connection.deferrable:
        modes.append("DEFERRABLE")
    return ", ".join(modes)
