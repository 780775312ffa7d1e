"""What a service holds: one engine, its two lanes, units of work and a status."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, Final, Self, get_args

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from qortex_db import embedded, opening
from qortex_db import engine as engines
from qortex_db.checks import check_choice, check_flag, check_number
from qortex_db.errors import DatabaseClosedError, InvalidInputError
from qortex_db.limits import DEFAULT_LIMITS, Limits
from qortex_db.observability import exporting, log, statement_spans
from qortex_db.observability.apart import apart
from qortex_db.repositories.validation import check_list
from qortex_db.settings import Settings, read_settings
from qortex_db.status import TABLES, Status, read_status
from qortex_db.uow import UnitOfWork, own_unit_of_work
from qortex_db.view import DatabaseView, IsolationLevel, Lanes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from qortex_db.encryption import EncryptionKeys

GRACE_SECONDS: Final = 10.0
"""How long `Database.close` lets what is in flight go on."""


def _reading(
    consistency: engines.Consistency | None, replicas: Sequence[object]
) -> engines.CallOptions:
    """How calls read that have no options of their own."""
    default: engines.Consistency | None = "session" if replicas else None
    return engines.NO_OPTIONS.with_consistency(default if consistency is None else consistency)


class Database(Lanes):
    """PostgreSQL as an AI system's memory.

    `vectors`, `factors`, `edges` and `arms` run each call by itself, in its own transaction and one
    round trip; `unit_of_work()` runs several as one transaction. `embeddings` is a cache.

    Make one with `connect` or `from_engine`, and share it: it is safe for any number of tasks of
    one event loop, and with `Settings(pool="null")` for those of any loop, thread and process.
    """

    _executor: engines.AutocommitExecutor | None

    def __init__(
        self,
        settings: Settings | None,
        engine: AsyncEngine | None,
        schema: str | None,
        *,
        learning_history: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        encryption_keys: EncryptionKeys | None = None,
        options: engines.CallOptions = engines.NO_OPTIONS,
        replicas: Sequence[AsyncEngine] = (),
        replica_wait_seconds: float = 0.0,
        metrics_seconds: float | None = None,
    ) -> None:
        super().__init__(
            None,
            options,
            learning_history=learning_history,
            limits=limits,
            encryption_keys=encryption_keys,
        )
        self._settings = settings
        self._schema = schema
        self._engine: AsyncEngine | None = None
        self._bound: dict[IsolationLevel | None, async_sessionmaker[AsyncSession]] = {}
        self._patience = 0.0
        self._server: embedded.EmbeddedServer | None = None
        self._opening = engines.OneAtATime(waits=settings is None or settings.pool == "null")
        self._ending: asyncio.Future[Any] | None = None
        self._host_engine = engine
        self._host_replicas = tuple(replicas)
        self._replica_wait_seconds = replica_wait_seconds
        self._replicas: engines.Replicas | None = None
        self._metrics_seconds = metrics_seconds
        self._telling: opening.Telling | None = None
        if engine is not None:
            self._bind(engine, self._host_replicas)

    @classmethod
    def connect(
        cls,
        target: Settings | str | URL | None = None,
        *,
        replicas: Sequence[str | URL] | None = None,
        consistency: engines.Consistency | None = None,
        encryption_keys: EncryptionKeys | None = None,
    ) -> Database:
        """A database by settings, by a DSN or URL, or by the environment. Nothing is opened yet.

        Use it with `async with`, or `await open()` and `await close()`.

        Args:
            target: By default the environment.
            replicas: DSNs of standbys that reads by themselves go to; by default the settings'.
            consistency: What a replica has to have before it answers, as of `options`; by default
                the settings', which is "session" where there are replicas.
            encryption_keys: Of what collections have encrypted; by default the settings'.

        Raises:
            InvalidInputError: The DSN, or a variable, can't be used.
        """
        if target is None:
            target = read_settings()
        elif isinstance(target, (str, URL)):
            target = read_settings(dsn=target)
        elif not isinstance(target, Settings):
            raise InvalidInputError(f"target is a {type(target).__name__}; pass Settings or a DSN.")
        if replicas is not None:
            target = target.with_replicas(check_list(replicas, name="replicas"))
        return cls(
            target,
            None,
            target.db_schema,
            learning_history=target.learning_history,
            limits=target.limits,
            options=_reading(
                target.consistency if consistency is None else consistency, target.replicas()
            ),
            replica_wait_seconds=target.replica_wait_seconds,
            encryption_keys=target.fernet_keys if encryption_keys is None else encryption_keys,
        )

    @classmethod
    def from_engine(
        cls,
        engine: AsyncEngine,
        *,
        schema: str | None = None,
        learning_history: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        encryption_keys: EncryptionKeys | None = None,
        settings: Mapping[str, engines.SettingValue] | None = None,
        network_timeout_seconds: float | None = None,
        replicas: Sequence[AsyncEngine] = (),
        consistency: engines.Consistency | None = None,
        replica_wait_seconds: float = 0.0,
        metrics_seconds: float | None = None,
    ) -> Database:
        """A database over a host's engine, which stays the host's to dispose of.

        Args:
            engine: An asyncpg engine; its connections take vectors in binary from now on.
            schema: Where the package's tables are, if not where the connections look.
            learning_history: Write an event of each change of an arm, in its own statement.
            limits: The most of what one call may bring.
            encryption_keys: Of what collections have encrypted.
            settings: What every transaction begins with, as of `with_settings`.
            network_timeout_seconds: End the engine's connections whose other end is silent for
                longer, 1 to 3600. None leaves them as they are.
            replicas: Engines on standbys that reads by themselves go to; the host's too.
            consistency: As of `connect`.
            replica_wait_seconds: How long a read waits for a replica to have what its caller wrote,
                0 to 60, before the primary answers.
            metrics_seconds: How often, once it is opened, the gauges are read that take a query,
                .1 to 86,400. None: never.

        Raises:
            InvalidInputError: The engine is no asyncpg engine, or an argument was refused.
        """
        if metrics_seconds is not None:
            check_number(metrics_seconds, name="metrics_seconds", low=0.1, high=86_400)
        wait = check_number(replica_wait_seconds, name="replica_wait_seconds", low=0, high=60)
        others = check_list(replicas, name="replicas")
        for each in (engine, *others):
            engines.adopt(each)
            engines.tell_of_rotation(each)
            if network_timeout_seconds is not None:
                seconds = check_number(
                    network_timeout_seconds, name="network_timeout_seconds", low=1, high=3_600
                )
                engines.notice_silence(each, seconds)
        options = _reading(consistency, others)
        if settings is not None:
            options = options.with_settings(settings)
        return cls(
            None,
            engine,
            schema,
            learning_history=learning_history,
            limits=limits,
            options=options,
            replicas=others,
            replica_wait_seconds=wait,
            metrics_seconds=metrics_seconds,
            encryption_keys=encryption_keys,
        )

    def _bind(self, engine: AsyncEngine, replicas: Sequence[AsyncEngine]) -> None:
        retry_seconds = (
            engines.RETRY_SECONDS if self._settings is None else self._settings.retry_seconds
        )
        self._engine = engine
        self._executor = engines.AutocommitExecutor(
            engine, self._schema, retry_seconds=retry_seconds, options=self._options
        )
        lanes = [
            # It repeats nothing: another one answers at once.
            engines.AutocommitExecutor(each, self._schema, retry_seconds=0)
            for each in replicas
        ]
        self._replicas = engines.Replicas(self._executor, lanes, self._replica_wait_seconds)
        self._executor.routing = self._replicas
        # Our own engine tries to connect again by itself.
        self._patience = 0.0 if self._host_engine is None else retry_seconds
        self._bound = {None: self._sessions_of(self._schema)}

    def _sessions_of(
        self, schema: str | None, isolation_level: IsolationLevel | None = None
    ) -> async_sessionmaker[AsyncSession]:
        options: dict[str, Any] = engines.translate_map(schema)
        if isolation_level is not None:
            options["isolation_level"] = isolation_level
        # A session that was closed would begin anew, in a transaction that nobody ends.
        return async_sessionmaker(
            self.engine.execution_options(**options) if options else self.engine,
            expire_on_commit=False,
            close_resets_only=False,
            info={engines.RETRY: self._patience},
            sync_session_class=engines.OwnSession,
        )

    def _unbind(self) -> None:
        """Forget the engine, and the repositories over it."""
        self._engine = self._executor = self._server = self._replicas = None
        self._bound = {}
        self._forget_repositories()

    @property
    def settings(self) -> Settings | None:
        """What it was made by; None over a host's engine."""
        return self._settings

    @property
    def engine(self) -> AsyncEngine:
        """The one engine.

        Raises:
            DatabaseClosedError: The database is not open.
        """
        if self._engine is None:
            raise DatabaseClosedError
        return self._engine

    async def open(self) -> Self:
        """Connect, and check what can be: idempotent, and fine on a database not yet migrated.

        Raises:
            InvalidInputError: `password_provider` gave no text.
            DimensionMismatchError: `QORTEX_VEC_DIMENSIONS` is not what the column holds.
            UnavailableError: No server answers.
            WrongLoopError: It is open, in another process or event loop.
            SchemaVersionError: The role does not see the schema that pgvector is in.
        """
        async with self._opening.turn():
            if self._engine is None:
                await self._open()
            else:
                self._lane().operations.settle()
            if self._host_engine is not None and self._replicas is not None:
                await self._replicas.open()
                if self._telling is None:
                    url = self._host_engine.url
                    self._begin_telling(f"{url.host or ''}/{url.database}", self._metrics_seconds)
            return self

    async def _open(self) -> None:
        if self._settings is None:
            if self._host_engine is not None:
                self._bind(self._host_engine, self._host_replicas)
                self._lane().operations.settle()
            return
        target = self._settings.target()
        if target is None:
            path = self._settings.embedded_path
            self._server = await asyncio.to_thread(embedded.start, path)
            target = self._server.target()
        engine = opening.engine_on(target, self._settings, TABLES)
        # A replica is not waited for.
        hasty = self._settings.model_copy(update={"retry_seconds": 0.0})
        self._bind(
            engine,
            [opening.engine_on(each, hasty, TABLES) for each in self._settings.replicas()],
        )
        replicas = self._replicas
        assert replicas is not None  # noqa: S101 - bound just now
        self._lane().operations.settle()
        try:
            size = 0 if self._settings.pool == "null" else self._settings.pool_min_size
            await opening.get_ready(self._lane(), engine, size)
            await opening.check(self._lane(), self.vectors, engine, self._settings.dimensions)
            await replicas.open()
        except BaseException:
            await self._close(0)
            raise
        with apart():  # its SDK may refuse what the environment says to it
            exporting.export(self._settings)
        self._begin_telling(target.display, self._settings.metrics_seconds)
        for name, reason in target.ignored.items():
            log.warning("dsn_parameter_ignored", name=name, reason=reason)
        looked_up = engines.path_of(engine.sync_engine)
        for schema in looked_up.open:
            left_out = not (schema.is_needed or looked_up.is_pooled)
            log.warning("search_path_open_to_others", advice=str(schema), left_out=left_out)

    def _begin_telling(self, server: str, metrics_seconds: float | None) -> None:
        log.info("database_opened", server=server)
        self._telling = opening.Telling(self, self.engine, self._schema, metrics_seconds)

    async def close(self, *, grace_seconds: float = GRACE_SECONDS) -> None:
        """Take no more calls, let what is in flight finish, and close the connections.

        What is not finished by then is cancelled on the server too, and raises
        `DatabaseClosedError`. The connections of a host's engine are the host's to close. A second
        call does nothing; `open` begins anew.

        Args:
            grace_seconds: How long calls and units of work that are in flight may take, 0 to 3600.

        Raises:
            InvalidInputError: The time was refused.
            WrongLoopError: Its connections are those of another process or event loop.
        """
        check_number(grace_seconds, name="grace_seconds", low=0, high=3_600)
        async with self._opening.turn():
            if self._executor is not None and self._host_engine is None:
                self._executor.operations.settle()
            await self._close(grace_seconds)

    async def _close(self, grace_seconds: float) -> None:
        engine, executor, server = self._engine, self._executor, self._server
        replicas = self._replicas
        if engine is None or executor is None or replicas is None:
            return
        telling, self._telling = self._telling, None
        self._unbind()
        try:
            if telling is not None:
                log.info("database_closing", in_flight=executor.operations.in_flight)
                await telling.end()
            own = executor.operations.close(grace_seconds)
            await asyncio.gather(own, replicas.close(grace_seconds))
        finally:
            # It goes on if whoever closes is cancelled: nobody else can end these connections.
            lanes = [executor, *(each.executor for each in replicas.all)]
            self._ending = engines.task_of(self._end(lanes, server))
            await asyncio.shield(self._ending)

    async def _end(
        self,
        lanes: Sequence[engines.AutocommitExecutor],
        server: embedded.EmbeddedServer | None,
    ) -> None:
        try:
            for lane in lanes:
                await lane.operations.finish()
        finally:
            if self._host_engine is None:
                for lane in lanes:
                    await engines.dispose(lane.engine)
                    # After it: it counts closed connections.
                    statement_spans.uninstrument(lane.engine)
            if server is not None:
                await asyncio.to_thread(server.stop)
            log.info("database_closed")

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def unit_of_work(
        self,
        *,
        isolation_level: IsolationLevel | None = None,
        timeout_seconds: float | None = None,
    ) -> AbstractAsyncContextManager[UnitOfWork]:
        """One transaction over everything: the block's end commits, an exception rolls back.

        Args:
            isolation_level: None is the engine's own; see `run` for "SERIALIZABLE".
            timeout_seconds: How long all of it may take, from the block's beginning to its end,
                .001 to 86,400. Then it is cancelled and rolled back, and raises `QueryTimeoutError`
                (`OutcomeUnknownError` if COMMIT was on its way). None: as long as it likes.

        Raises:
            InvalidInputError: The isolation level or the time was refused.
            DatabaseClosedError: The database is not open.
        """
        return self._begin(self._options, isolation_level, timeout_seconds)

    def _begin(
        self,
        options: engines.CallOptions,
        isolation_level: IsolationLevel | None,
        timeout_seconds: float | None,
    ) -> AbstractAsyncContextManager[UnitOfWork]:
        schema = options.schema or self._schema
        operations = self._lane().operations
        if timeout_seconds is not None:
            check_number(timeout_seconds, name="timeout_seconds", low=0.001, high=86_400)
        if isolation_level is not None:
            check_choice(isolation_level, get_args(IsolationLevel), name="isolation_level")
        if options.schema is not None:
            bound = self._sessions_of(schema, isolation_level)
        else:
            if isolation_level not in self._bound:  # each once: what is learned is kept by engine
                self._bound[isolation_level] = self._sessions_of(schema, isolation_level)
            bound = self._bound[isolation_level]
        sessions: Callable[[], AsyncSession] = bound
        if options.search_path is not None:
            sessions = functools.partial(bound, info={engines.SEARCH_PATH: options.search_path})
        return own_unit_of_work(
            sessions,
            operations,
            schema=schema,
            learning_history=self._learning_history,
            limits=self._limits,
            encryption_keys=self._encryption_keys,
            at_begin=options.set_on if options.local else None,
            timeout_seconds=timeout_seconds,
            own_writes=options.own_writes,
        )

    def _lane(self) -> engines.AutocommitExecutor:
        if self._executor is None:
            raise DatabaseClosedError
        return self._executor

    def _view(self, options: engines.CallOptions) -> DatabaseView:
        return DatabaseView(
            self._lane,
            self._begin,
            options,
            learning_history=self._learning_history,
            limits=self._limits,
            encryption_keys=self._encryption_keys,
        )

    async def status(self, *, exact: bool = False) -> Status:
        """Versions, sizes, invalid indexes and the pool's use. Counts rows, so not for each call.

        Args:
            exact: Whether tables of more than a million rows are counted too, in the place of what
                the planner takes them to have.

        Raises:
            InvalidInputError: `exact` is neither True nor False.
            SchemaVersionError: The database is not migrated.
        """
        check_flag(exact, name="exact")
        self._lane()
        assert self._replicas is not None  # noqa: S101 - there where a lane is
        return await read_status(
            self.executor,
            self.engine,
            self._schema,
            dimensions=await self.vectors.dimensions(),
            embedded=self._server is not None,
            replicas=await self._replicas.status(),
            exact=exact,
        )
