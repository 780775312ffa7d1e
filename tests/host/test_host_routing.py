"""Sessions that lead each model, or each shard, to an engine of its own."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from qortex_db import (
    Collection,
    InteroceptionFactor,
    InvalidInputError,
    QortexVector,
    Settings,
    VectorMixin,
    VectorSpec,
    models,
    unit_of_work,
)
from support.catalogue import rows
from support.servers import copied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from qortex_db import UnitOfWork
    from qortex_db.testing import Server

VECTOR = [1.0] + [0.0] * 7
TABLES = (
    *("qortex_vectors", "interoception_factors", "interoception_edge_buffer"),
    *("learning_arm_states", "learning_events", "qortex_embedding_cache"),
    *("qortex_db_idempotency_keys", "qortex_db_word_frequencies", "qortex_db_changeovers"),
    *("qortex_db_checkpoints", "qortex_db_indexed_documents"),
    "papers",
)


class Base(DeclarativeBase):
    """The host's."""


class Paper(VectorMixin, Base):
    __tablename__ = "papers"
    __collection__ = Collection(VectorSpec(8, index=None))

    author: Mapped[str | None] = mapped_column()


@pytest.fixture
def two(server: Server, template: str) -> Iterator[list[str]]:
    """The host's own database, and one for memory."""
    with copied(server, template) as first, copied(server, template) as second:
        yield [first, second]


@asynccontextmanager
async def engines(dsns: list[str]) -> AsyncIterator[list[AsyncEngine]]:
    async with AsyncExitStack() as stack:
        made = []
        for dsn in dsns:
            engine = create_async_engine(Settings(dsn=dsn).target().url)  # type: ignore[union-attr]
            stack.push_async_callback(engine.dispose)
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
            made.append(engine)
        yield made


def by_bases(own: AsyncEngine, memory: AsyncEngine) -> Any:
    return {"binds": {Base: own, models.Base: memory}}


def by_models(own: AsyncEngine, memory: AsyncEngine) -> Any:
    ours = [mapper.class_ for mapper in models.Base.registry.mappers]
    return {"bind": own, "binds": dict.fromkeys(ours, memory)}


def by_get_bind(own: AsyncEngine, memory: AsyncEngine) -> Any:
    class Routing(Session):
        def get_bind(self, mapper: Any = None, **_: Any) -> Any:
            if mapper is None:
                raise LookupError("Which model?")
            ours = issubclass(mapper.class_, models.Base)
            return (memory if ours else own).sync_engine

    return {"sync_session_class": Routing}


async def write_everything(uow: UnitOfWork) -> None:
    record = {"id": "a", "embedding": VECTOR}
    assert await uow.vectors.upsert([record]) == 1
    assert await uow.collection(Paper).upsert([{**record, "attributes": {"author": "Ada"}}]) == 1
    assert await uow.collection(Paper).ingest([{**record, "id": "b"}]) == 1
    await uow.factors.save({"n": 1.0})
    assert await uow.edges.record_many([("a", "b", 0.5)]) == 1
    assert (await uow.arms.observe("l", "a", reward=1.0, idempotency_key="k")).pulls == 1
    await uow.embeddings.embed(["t"], model=lambda _: [VECTOR], name="m")
    assert (await uow.vectors.count_words()).documents == 0
    assert [hit.id for hit in await uow.vectors.search(VECTOR)] == ["a"]
    assert [hit.id for hit in await uow.collection(Paper).search(VECTOR)] == ["a", "b"]


async def fail(session: AsyncSession) -> None:
    async with unit_of_work(session) as uow:
        await uow.factors.adjust({"loaded": "accepted"})
        await uow.collection(Paper).delete(["b"])
        raise ZeroDivisionError


async def counts(dsn: str) -> list[int]:
    selects = " UNION ALL ".join(f"SELECT {i}, count(*) FROM {t}" for i, t in enumerate(TABLES))
    return await rows(dsn, f"SELECT n FROM ({selects} ORDER BY 1) s(i, n)")


@pytest.mark.parametrize("route", [by_bases, by_models, by_get_bind], ids=lambda f: f.__name__)
async def test_rows_go_where_the_session_has_their_model(two: list[str], route: Any) -> None:
    async with engines(two) as (own, memory), AsyncSession(**route(own, memory)) as session:
        session.add(InteroceptionFactor(node_id="loaded", weight=1.0))
        async with unit_of_work(session, learning_history=True) as uow:
            await write_everything(uow)
            async with uow.options(timeout_seconds=2.5):
                asked = await uow.vectors._vectors.run(text("SHOW statement_timeout"), {})
                assert asked.rows[0][0] == "2500ms"
        loaded = await session.get_one(InteroceptionFactor, "loaded")
        paper = await session.get_one(Paper, "a")
        async with unit_of_work(session) as uow:
            await uow.factors.adjust({"loaded": "accepted"})
            await uow.collection(Paper).update("a", attributes={"author": "Bob"})
        assert (loaded.weight, paper.author) == (1.1, "Bob")
        with pytest.raises(ZeroDivisionError):
            await fail(session)
        assert loaded.weight == 1.1
        await session.commit()
    assert await counts(two[0]) == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert await counts(two[1]) == [1, 2, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0]


async def test_a_shard_is_named(two: list[str]) -> None:
    async with engines(two) as (east, west):
        options: dict[str, Any] = {
            "shards": {"east": east.sync_engine, "west": west.sync_engine},
            "shard_chooser": lambda _mapper, instance, _clause: instance.author,
            "identity_chooser": lambda *_args, **_options: ["east", "west"],
            "execute_chooser": lambda _: ["east", "west"],
        }
        async with AsyncSession(sync_session_class=ShardedSession, **options) as session:
            for shard in ("east", "west", "west"):
                async with unit_of_work(session, bind_arguments={"shard_id": shard}) as uow:
                    await uow.vectors.upsert([{"id": shard, "embedding": VECTOR}])
                    assert await uow.vectors.count() == 1
            found = (await session.scalars(select(QortexVector))).all()
            assert {each.id for each in found} == {"east", "west"}
            async with unit_of_work(session, bind_arguments={"shard_id": "west"}) as uow:
                await uow.vectors.update("west", payload={"n": 1})
            assert {each.id: each.payload for each in found} == {"east": {}, "west": {"n": 1}}
            await session.commit()
    for dsn, shard in zip(two, ("east", "west"), strict=True):
        assert await rows(dsn, "SELECT id FROM qortex_vectors") == [shard]


async def test_a_session_that_has_no_engine_for_ours_says_so(two: list[str]) -> None:
    async with (
        engines(two) as (own, _),
        AsyncSession(binds={Base: own}) as session,
        unit_of_work(session) as uow,
    ):
        assert await uow.collection(Paper).count() == 0
        with pytest.raises(InvalidInputError, match="InteroceptionFactor"):
            await uow.factors.load()
