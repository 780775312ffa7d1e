"""The unit of work: one transaction over all repositories and the host's own rows."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import event
from sqlalchemy.ext.asyncio import async_scoped_session

from qortex_db.checks import check_text
from qortex_db.embedders import Embedder
from qortex_db.engine import (
    NO_OPTIONS,
    SessionExecutor,
    close,
    commit,
    committed,
    in_doubt,
    savepoint,
    set_meanwhile,
    wrote,
)
from qortex_db.errors import DatabaseClosedError, InvalidInputError, QueryTimeoutError
from qortex_db.limits import DEFAULT_LIMITS, Limits
from qortex_db.models import (
    CachedEmbedding,
    IdempotencyKey,
    InteroceptionEdge,
    InteroceptionFactor,
    LearningArmState,
    QortexVector,
)
from qortex_db.models.collection import collection_of
from qortex_db.models.mapping import collection_table, model_named
from qortex_db.repositories import (
    ArmRepository,
    EdgeRepository,
    EmbeddingRepository,
    FactorRepository,
    IdempotencyRepository,
    VectorRepository,
)
from qortex_db.repositories.vectors.rows.texts import TextEmbedder, TextEmbedders

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import SessionTransaction

    from qortex_db.encryption import EncryptionKeys
    from qortex_db.engine import Executor, Operations, OwnWrites
    from qortex_db.models import Collection
    from qortex_db.repositories.vectors.rows.records import IdT

AnySession = TypeVar("AnySession", bound="AsyncSession")


class Repositories:
    """The repositories over one executor; None until there is one."""

    def __init__(
        self,
        executor: Executor | None,
        *,
        learning_history: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        encryption_keys: EncryptionKeys | None = None,
    ) -> None:
        self._executor = executor
        self._learning_history = learning_history
        self._limits = limits
        self._encryption_keys = encryption_keys

    @property
    def executor(self) -> Executor:
        """The lane that statements take.

        Raises:
            DatabaseClosedError: There is none: the database is not open.
        """
        if self._executor is None:
            raise DatabaseClosedError
        return self._executor

    def _forget_repositories(self) -> None:
        """So that those of another executor are made anew."""
        for name in list(self.__dict__):
            if isinstance(getattr(type(self), name, None), functools.cached_property):
                del self.__dict__[name]

    @functools.cached_property
    def vectors(self) -> VectorRepository:
        """The default collection, `qortex_vectors`."""
        return self.collection(QortexVector)

    @functools.cached_property
    def factors(self) -> FactorRepository:
        """The nodes' weights."""
        return FactorRepository(self.executor.of(InteroceptionFactor), limits=self._limits)

    @functools.cached_property
    def edges(self) -> EdgeRepository:
        """The buffer of observed pairs."""
        return EdgeRepository(self.executor.of(InteroceptionEdge), limits=self._limits)

    @functools.cached_property
    def arms(self) -> ArmRepository:
        """The bandits' posteriors."""
        return ArmRepository(
            self.executor.of(LearningArmState),
            history=self._learning_history,
            limits=self._limits,
        )

    @functools.cached_property
    def embeddings(self) -> EmbeddingRepository:
        """The cache of embeddings."""
        return EmbeddingRepository(self.executor.of(CachedEmbedding), limits=self._limits)

    @functools.cached_property
    def idempotency(self) -> IdempotencyRepository:
        """The keys by which a call that is repeated counts once."""
        return IdempotencyRepository(self.executor.of(IdempotencyKey), limits=self._limits)

    def collection(
        self,
        model: type[object] | str,
        collection: Collection | None = None,
        *,
        namespace: Any = None,
        embedder: object = None,
        name: str | None = None,
        revision: str = "",
    ) -> VectorRepository[IdT]:
        """The vectors of a model with VectorMixin, or of any other with a key and a vector.

        Args:
            model: The class, mapped in whatever way; or, of one with VectorMixin, its table's name.
            collection: Which of its columns are what, where it has no `__collection__` that says
                so.
            namespace: Of a collection that declares one, and then it has to be given: every method
                is about its rows alone, and writes into it. `ALL_NAMESPACES` means everybody's
                rows, to which none can be added; not where the namespace is in the key.
            embedder: A model, or an `Embedder`, in the place of the collection's own: what is
                written with a document and no embedding gets that of the document, and searches
                take texts. All of it through the cache, so that nothing is embedded twice. Of
                several vectors, `{"vec": …, "title": …}`: each by its name. While
                the table changes its model, `{"old": …, "v2": …}`: both by their names, first the
                one that a table of one model alone has.
            name: As of `Embedder`.
            revision: As of `Embedder`.

        Raises:
            InvalidInputError: The model is no collection, or has no such namespace;
                it says what is missing.
        """
        if isinstance(model, str):
            model = model_named(model)
        table = collection_table(model, collection)
        given = collection_of(table).embedder if embedder is None else embedder
        texts = None
        if isinstance(given, Mapping):
            if not given or name is not None or revision:
                raise InvalidInputError(
                    "embedder has to have a model by the name of each vector, as an "
                    "Embedder(model, name=…) where it needs one."
                )
            for key, spec in collection_of(table).vectors.items():
                if key in given and spec.storage == "sparse":
                    raise InvalidInputError(
                        f"embedder names {key}, a sparse vector, which no model here embeds for."
                    )
            models = {check_text(key, name="embedder"): Embedder.of(given[key]) for key in given}
            texts = TextEmbedders(
                {key: TextEmbedder(one, self.embeddings) for key, one in models.items()}
            )
        elif given is not None:
            made = Embedder.of(given, name=name, revision=revision)
            texts = TextEmbedders({"": TextEmbedder(made, self.embeddings)})
        elif name is not None or revision:
            raise InvalidInputError("name and revision are an embedder's; pass it too.")
        return VectorRepository(
            self.executor.of(model),
            table,
            namespace=namespace,
            limits=self._limits,
            encryption_keys=self._encryption_keys,
            texts=texts,
            cache=lambda: self.embeddings,
        )


class UnitOfWork(Repositories):
    """The repositories in a session's transaction.

    It neither begins, commits nor closes: whoever opened the transaction ends it. One unit of work
    belongs to one task.

    Args:
        session: Where everything happens; add rows of your own models to it.
        schema: Where the package's tables are, if not where the session's connection looks.
        learning_history: Write an event of each change of an arm, in its own statement.
        limits: The most of what one call may bring.
        encryption_keys: Of what collections have encrypted.
        bind_arguments: What the session's `get_bind` is given beside model and statement, such as
            a sharded session's `shard_id`.
    """

    def __init__(
        self,
        session: AsyncSession,
        *,
        schema: str | None = None,
        learning_history: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        encryption_keys: EncryptionKeys | None = None,
        bind_arguments: Mapping[str, Any] | None = None,
    ) -> None:
        executor = SessionExecutor(session, schema, bind_arguments)
        super().__init__(
            executor,
            learning_history=learning_history,
            limits=limits,
            encryption_keys=encryption_keys,
        )
        self.session = session

    def options(
        self, *, timeout_seconds: float | None = None, lock_timeout_seconds: float | None = None
    ) -> AbstractAsyncContextManager[None]:
        """A block whose statements have a time-out of their own: `async with uow.options(…):`.

        It costs a round trip at its beginning and at its end. An error in it aborts the transaction
        as any other does; put a savepoint around it (`session.begin_nested()`) to go on.

        Args:
            timeout_seconds: How long a statement may take, .001 to 86,400; `QueryTimeoutError`.
            lock_timeout_seconds: How long it may wait for a lock, likewise; `LockTimeoutError`.

        Raises:
            InvalidInputError: A number is out of its range.
        """
        limits = NO_OPTIONS.with_limits(timeout_seconds, lock_timeout_seconds)
        return set_meanwhile(self.executor.of(QortexVector), limits)


@asynccontextmanager
async def unit_of_work(
    session: AsyncSession | async_scoped_session[AnySession],
    *,
    schema: str | None = None,
    learning_history: bool = False,
    limits: Limits = DEFAULT_LIMITS,
    encryption_keys: EncryptionKeys | None = None,
    bind_arguments: Mapping[str, Any] | None = None,
) -> AsyncIterator[UnitOfWork]:
    """A unit of work inside a host's session: a savepoint, released at the end of the block.

    An exception rolls back to the savepoint; the host still ends its own transaction. The arguments
    are those of `UnitOfWork`.
    """
    plain = session() if isinstance(session, async_scoped_session) else session
    async with savepoint(plain, schema, {} if bind_arguments is None else bind_arguments):
        yield UnitOfWork(
            plain,
            schema=schema,
            learning_history=learning_history,
            limits=limits,
            encryption_keys=encryption_keys,
            bind_arguments=bind_arguments,
        )


@asynccontextmanager
async def own_unit_of_work(
    sessions: Callable[[], AsyncSession],
    operations: Operations,
    *,
    schema: str | None = None,
    learning_history: bool = False,
    limits: Limits = DEFAULT_LIMITS,
    encryption_keys: EncryptionKeys | None = None,
    at_begin: Callable[[Connection], None] | None = None,
    timeout_seconds: float | None = None,
    own_writes: OwnWrites | None = None,
) -> AsyncIterator[UnitOfWork]:
    """A unit of work with a session of its own: the block's end commits, an exception rolls back.

    Args:
        sessions: What makes the session.
        operations: What is in flight on its engine.
        schema: As of `UnitOfWork`.
        learning_history: As of `UnitOfWork`.
        limits: As of `UnitOfWork`.
        encryption_keys: As of `UnitOfWork`.
        at_begin: What each of its transactions begins with.
        timeout_seconds: How long all of it may take.
        own_writes: Where it is noted.

    Raises:
        QueryTimeoutError: The time was up, and what was done is rolled back.
        QortexDbError: The transaction was aborted by an error that the block caught, and nothing of
            it is stored. That error is the cause, if a call of ours met it.
        OutcomeUnknownError: The connection broke during COMMIT, the time was up, or the Database
            was closed.
        DatabaseClosedError: The Database was closed meanwhile, and what was done is rolled back.
    """
    task = operations.begin()
    session = sessions()
    if at_begin is not None:
        _begin_with(session, at_begin)
    deadline = None if timeout_seconds is None else asyncio.timeout(timeout_seconds)
    at_once = False
    mark = 0 if own_writes is None else own_writes.begin()
    try:
        async with deadline or nullcontext():
            yield UnitOfWork(
                session,
                schema=schema,
                learning_history=learning_history,
                limits=limits,
                encryption_keys=encryption_keys,
            )
            await commit(session)
        if own_writes is not None and wrote(session):
            own_writes.end(mark, committed(session))
    except BaseException as error:
        if own_writes is not None and wrote(session):
            own_writes.lose()
        expired = deadline is not None and deadline.expired()
        at_once = expired or not isinstance(error, Exception)
        closed = operations.was_closed(task) and isinstance(error, asyncio.CancelledError)
        if not (expired and isinstance(error, TimeoutError)) and not closed:
            raise
    else:
        return
    finally:
        try:
            await close(session, operations.cleanup, at_once=at_once)
        except asyncio.CancelledError:
            if not operations.was_closed(task):  # else the block has had its end
                raise
        finally:
            operations.end(task)
    what = "The unit of work's timeout_seconds was up" if expired else "The Database was closed"
    raise in_doubt(session, what) or _undone(what, expired=expired)


def _undone(what: str, *, expired: bool) -> Exception:
    kind = QueryTimeoutError if expired else DatabaseClosedError
    return kind(f"{what} before COMMIT: nothing of the unit of work is stored.")


def _begin_with(session: AsyncSession, work: Callable[[Connection], None]) -> None:
    def begin(_: object, transaction: SessionTransaction, connection: Connection) -> None:
        if not transaction.nested:  # a savepoint keeps what was set since
            work(connection)

    event.listen(session.sync_session, "after_begin", begin)
