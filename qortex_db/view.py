"""Views of a Database: the same pool, under settings or a schema of their own."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeVar, overload

from qortex_db import retries
from qortex_db.checks import check_flag, check_number, check_whole
from qortex_db.engine import CallOptions, ViewExecutor
from qortex_db.errors import InvalidInputError
from qortex_db.names import is_identifier
from qortex_db.repositories.validation import MAX_LIMIT, check_callable
from qortex_db.uow import Repositories, UnitOfWork

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from qortex_db.encryption import EncryptionKeys
    from qortex_db.engine import AutocommitExecutor, Consistency, Executor, SettingValue
    from qortex_db.limits import Limits


T = TypeVar("T")
IsolationLevel = Literal["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]


class Lanes(Repositories):
    """Both lanes: calls by themselves and units of work; and views, which share all but options."""

    _options: CallOptions

    def __init__(
        self,
        executor: Executor | None,
        options: CallOptions,
        *,
        learning_history: bool,
        limits: Limits,
        encryption_keys: EncryptionKeys | None = None,
    ) -> None:
        super().__init__(
            executor,
            learning_history=learning_history,
            limits=limits,
            encryption_keys=encryption_keys,
        )
        self._options = options

    @abstractmethod
    def unit_of_work(
        self,
        *,
        isolation_level: IsolationLevel | None = None,
        timeout_seconds: float | None = None,
    ) -> AbstractAsyncContextManager[UnitOfWork]:
        """One transaction over everything: the block's end commits, an exception rolls back."""

    @overload
    async def run(
        self,
        work: Callable[[UnitOfWork], Awaitable[T]],
        *,
        isolation_level: IsolationLevel | None = None,
        max_attempts: int = retries.MAX_ATTEMPTS,
        timeout_seconds: float = retries.TIMEOUT_SECONDS,
        retry_unavailable: bool = False,
        idempotency_key: None = None,
    ) -> T: ...
    @overload
    async def run(
        self,
        work: Callable[[UnitOfWork], Awaitable[T]],
        *,
        isolation_level: IsolationLevel | None = None,
        max_attempts: int = retries.MAX_ATTEMPTS,
        timeout_seconds: float = retries.TIMEOUT_SECONDS,
        retry_unavailable: bool = False,
        idempotency_key: str,
    ) -> T | None: ...
    async def run(
        self,
        work: Callable[[UnitOfWork], Awaitable[T]],
        *,
        isolation_level: IsolationLevel | None = None,
        max_attempts: int = retries.MAX_ATTEMPTS,
        timeout_seconds: float = retries.TIMEOUT_SECONDS,
        retry_unavailable: bool = False,
        idempotency_key: str | None = None,
    ) -> T | None:
        """Run a function in a unit of work, and again, in a new one, where it met another.

        It is run again on serialization failures and deadlocks, after a pause of any length up to a
        bound that doubles to a second. What it does besides the unit of work, it then does twice.
        A cancellation ends it.

        Args:
            work: An async function of the unit of work, which `run` commits.
            isolation_level: "READ COMMITTED", "REPEATABLE READ" or "SERIALIZABLE"; None is the
                engine's own.
            max_attempts: How often it is begun at most, 1 to 10,000.
            timeout_seconds: After which it is begun no more.
            retry_unavailable: Whether it may be run again where the server went away before COMMIT,
                or can't be reached.
            idempotency_key: Text that is this unit of work's own: however often it is run with it,
                it is committed once. So it is also run again where the connection broke during
                COMMIT, if `retry_unavailable` says so.

        Returns:
            What the function returned; None where a run before had the key.

        Raises:
            InvalidInputError: An argument was refused; the function was not called.
            SerializationConflictError: The last attempt failed too.
            OutcomeUnknownError: The connection broke during COMMIT.
            IdempotencyKeyReusedError: The key was used for a method's call.
        """
        check_callable(work, name="work")
        attempts = check_whole(max_attempts, 1, MAX_LIMIT, name="max_attempts")
        seconds = check_number(timeout_seconds, name="timeout_seconds", low=0)
        check_flag(retry_unavailable, name="retry_unavailable")

        async def attempt() -> T | None:
            async with self.unit_of_work(isolation_level=isolation_level) as uow:
                if idempotency_key is not None and not await uow.idempotency.claim(idempotency_key):
                    return None
                return await work(uow)

        return await retries.run_again(
            attempt,
            max_attempts=attempts,
            timeout_seconds=seconds,
            unavailable=retry_unavailable,
            in_doubt=retry_unavailable and idempotency_key is not None,
        )

    @abstractmethod
    def _view(self, options: CallOptions) -> DatabaseView:
        """The same under other options."""

    def with_settings(self, settings: Mapping[str, SettingValue]) -> DatabaseView:
        """A view whose calls and units of work run under settings that row-level security reads.

        Each call is a transaction that begins with them (`SET LOCAL`, by `set_config`): three round
        trips instead of one. Nothing of it is left on the connection. A view costs microseconds,
        and nothing has to be closed.

        Args:
            settings: By name, as "app.tenant"; a later view's go before an earlier one's.

        Raises:
            InvalidInputError: A name is none, or a value no text, number or UUID.
        """
        return self._view(self._options.with_settings(settings))

    def options(
        self,
        *,
        timeout_seconds: float | None = None,
        lock_timeout_seconds: float | None = None,
        consistency: Consistency | None = None,
    ) -> DatabaseView:
        """A view whose statements have less time, or more, than the Database's, or read fresher.

        By themselves, calls are limited at no cost by `timeout_seconds`, and are a transaction of
        three round trips with `lock_timeout_seconds`. Units of work have both set at their
        beginning, for each of their statements; more time than the engine's own limit only calls by
        themselves get. What is not given stays as it is.

        Args:
            timeout_seconds: How long a statement may take, .001 to 86,400; `QueryTimeoutError`.
            lock_timeout_seconds: How long it may wait for a lock, likewise; `LockTimeoutError`.
            consistency: What replicas have to have before they answer: "eventual" nothing,
                "session" what was written by this Database, or where that is not of "session"
                itself, through this view; "strong" all, so that none is asked.

        Raises:
            InvalidInputError: A number is out of its range, or a word is none of these.
        """
        limited = self._options.with_limits(timeout_seconds, lock_timeout_seconds)
        return self._view(limited.with_consistency(consistency))

    def token(self) -> str | None:
        """What was last written here, for `reading_after` in this process or another.

        It is of letters, digits and a hyphen, 18 at most, and no secret. Only a caller with
        consistency "session" has one, who pays for it with some microseconds a write.

        Returns:
            None where nothing was written.

        Raises:
            InvalidInputError: Writes are not noted here.
        """
        if self._options.own_writes is None:
            raise InvalidInputError(
                "Writes are not noted here: they are with consistency='session', and by a view of "
                "reading_after()."
            )
        return self._options.own_writes.token

    def reading_after(self, token: str | None) -> DatabaseView:
        """A view for one caller, who reads what it wrote, here and before.

        By themselves its reads are answered by a replica that has those writes, or by the primary.
        Give the caller the view's `token()` with each answer, as in a header, and take it back with
        the next call.

        Args:
            token: What `token()` gave to the caller before; None for one who has written nothing.

        Raises:
            InvalidInputError: It is no token.
        """
        return self._view(self._options.reading_after(token))

    def namespace(self, name: str) -> DatabaseView:
        """A view of another schema's tables: a tenant's arms, factors, edges, caches and vectors.

        `qortex-db upgrade --schema NAME` makes them. The SQL is compiled once for all of them.

        Raises:
            InvalidInputError: The name is no identifier of 1 to 63 letters, digits, _ and $.
        """
        if not isinstance(name, str) or not is_identifier(name):
            raise InvalidInputError(
                "The name of a namespace is that of a schema: an identifier of 1 to 63 letters, "
                "digits, _ and $."
            )
        return self._view(replace(self._options, schema=name))


class DatabaseView(Lanes):
    """What `with_settings`, `options` and `namespace` of a Database give: the same, otherwise.

    It is as open as its Database, and holds nothing that has to be closed.
    """

    def __init__(
        self,
        lane: Callable[[], AutocommitExecutor],
        begin: Callable[
            [CallOptions, IsolationLevel | None, float | None],
            AbstractAsyncContextManager[UnitOfWork],
        ],
        options: CallOptions,
        *,
        learning_history: bool,
        limits: Limits,
        encryption_keys: EncryptionKeys | None = None,
    ) -> None:
        super().__init__(
            ViewExecutor(lane, options),
            options,
            learning_history=learning_history,
            limits=limits,
            encryption_keys=encryption_keys,
        )
        self._lane = lane
        self._begin = begin

    def unit_of_work(
        self,
        *,
        isolation_level: IsolationLevel | None = None,
        timeout_seconds: float | None = None,
    ) -> AbstractAsyncContextManager[UnitOfWork]:
        """One transaction over everything, which begins with the view's settings.

        Args:
            isolation_level: As of the Database's.
            timeout_seconds: As of :meth:`Database.unit_of_work`.

        Raises:
            DatabaseClosedError: The Database is not open.
        """
        return self._begin(self._options, isolation_level, timeout_seconds)

    def _view(self, options: CallOptions) -> DatabaseView:
        return DatabaseView(
            self._lane,
            self._begin,
            options,
            learning_history=self._learning_history,
            limits=self._limits,
            encryption_keys=self._encryption_keys,
        )
