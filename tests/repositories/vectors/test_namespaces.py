"""One tenant's rows: no method of `collection(Model, namespace=…)` sees or changes any other."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Integer
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import (
    ALL_NAMESPACES,
    HNSW,
    Aggregate,
    Collection,
    ConflictError,
    Database,
    FieldBoost,
    InvalidInputError,
    NotFoundError,
    SearchHit,
    VectorMixin,
    VectorRecord,
    VectorSpec,
)
from qortex_db.models import collection_of
from qortex_db.repositories import VectorRepository
from support.catalogue import execute, rows
from support.compilations import compilations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


class Base(DeclarativeBase):
    """A host's own."""


class Alone(VectorMixin, Base):
    """What a scoped collection has to be like: a table with one tenant's rows."""

    __tablename__ = "alone"
    __collection__ = Collection(VectorSpec(8))


class Beside(VectorMixin, Base):
    """The namespace is a column beside the key."""

    __tablename__ = "beside"
    __collection__ = Collection(VectorSpec(8), namespace="tenant")


class InKey(VectorMixin, Base):
    __tablename__ = "in_key"
    __collection__ = Collection(VectorSpec(8), namespace="tenant", namespace_in_key=True)


class Large(VectorMixin, Base):
    __tablename__ = "large"
    __collection__ = Collection(
        VectorSpec(8, quantization="half", index=HNSW(m=8)),
        namespace="tenant",
        namespace_in_key=True,
        large_namespaces=("it's a: 50%", "a"),
    )


class Numbered(VectorMixin, Base):
    """The host's own column, an integer."""

    __tablename__ = "numbered"
    __collection__ = Collection(VectorSpec(8), namespace="account", namespace_in_key=True)

    account: Mapped[int] = mapped_column(Integer, primary_key=True)


class Parts(VectorMixin, Base):
    __tablename__ = "parts"
    __collection__ = Collection(VectorSpec(8), namespace="tenant", namespace_in_key=True)
    __table_args__ = {"postgresql_partition_by": "LIST (tenant)"}  # noqa: RUF012 - SQLAlchemy's


KINDS: dict[type[Any], tuple[Any, Any]] = {
    Beside: ("a", "b"),
    InKey: ("a", "b"),
    Large: ("a", "b"),
    Numbered: (7, 8),
    Parts: ("a", "b"),
}
RNG = np.random.default_rng(7)
VECTORS = RNG.normal(size=(120, 8)).astype(np.float32)
OTHERS = VECTORS + 0.01  # nearly the same: whoever looks at them, finds them


def records(vectors: Any, prefix: str = "r") -> list[dict[str, Any]]:
    return [
        {
            "id": f"{prefix}{i:03}",
            "embedding": row,
            "payload": {"n": i % 5, "of": {"x": i}},
            "document": "odd words" if i % 2 else "even things",
        }
        for i, row in enumerate(vectors)
    ]


@pytest.fixture
async def db(empty_dsn: str) -> AsyncIterator[Database]:
    await execute(empty_dsn, "CREATE EXTENSION vector")
    async with Database.connect(empty_dsn) as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            for name in ("a", "b"):
                await connection.exec_driver_sql(
                    f"CREATE TABLE parts_{name} PARTITION OF parts FOR VALUES IN ('{name}')"
                )
        yield database


async def filled(db: Database, model: type[Any]) -> tuple[VectorRepository, ...]:
    """The twin, the tenant with the same rows, and another with rows that are nearly the same."""
    mine, theirs = KINDS[model]
    twin = db.collection(Alone)
    scoped = db.collection(model, namespace=mine)
    other = db.collection(model, namespace=theirs)
    prefix = "r" if collection_of(model.__table__).namespace_in_key else "other"
    await other.upsert(records(OTHERS, prefix))
    for vectors in (twin, scoped):
        await vectors.upsert(records(VECTORS))
    return twin, scoped, other


def plain(value: Any) -> Any:
    """Whatever a method returns, to be compared."""
    if isinstance(value, (SearchHit, VectorRecord)):
        score = getattr(value, "score", None)
        embedding = None if value.embedding is None else np.asarray(value.embedding).tolist()
        rounded = None if score is None else round(float(score), 5)
        return value.id, rounded, value.payload, value.document, embedding
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if hasattr(value, "records"):
        return plain(value.records), value.next
    if isinstance(value, Aggregate):
        return value.value, value.count, value.of
    if hasattr(value, "hits"):
        return value.value, plain(value.hits)
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        return value
    return [plain(item) for item in value]


async def streamed(vectors: VectorRepository) -> list[Any]:
    return [record async for record in vectors.stream(batch_size=50)]


async def streamed_hits(vectors: VectorRepository) -> list[Any]:
    return [hit async for hit in vectors.stream_search(Q, batch_size=50)]


async def in_batches(vectors: VectorRepository) -> list[Any]:
    batches = [batch async for batch in vectors.stream_batches(batch_size=50)]
    return [(batch.ids, batch.embeddings.tolist()) for batch in batches]


Q = VECTORS[3]
READS: dict[str, Callable[[VectorRepository], Awaitable[Any]]] = {
    "search": lambda v: v.search(Q, limit=20),
    "search for all": lambda v: v.search(Q, limit=500),
    "search with a setting": lambda v: v.search(Q, ef_search=50, with_embedding=True),
    "exact": lambda v: v.search(Q, exact=True, min_score=0.1),
    "where": lambda v: v.search(Q, limit=60, where={"n": {"$gte": 3}}),
    "boosted": lambda v: v.search(Q, limit=60, boost=FieldBoost("n")),
    "where_document": lambda v: v.search(Q, where_document={"$contains": "odd"}),
    "range_search": lambda v: v.range_search(Q, min_score=0.2),
    "hybrid_search": lambda v: v.hybrid_search(Q, "odd", limit=40),
    "hybrid_search by scores": lambda v: v.hybrid_search(Q, "odd", alpha=0.3, where={"n": 1}),
    "hybrid_search by words": lambda v: v.hybrid_search(None, "odd", limit=40),
    "hybrid_search by all words": lambda v: v.hybrid_search(Q, "odd words", match="all"),
    "hybrid_search as a phrase": lambda v: v.hybrid_search(Q, "even things", match="phrase"),
    "hybrid_search without words": lambda v: v.hybrid_search(
        Q, "things -odd", match="websearch", limit=60, exact=True
    ),
    "search_many": lambda v: v.search_many([Q, VECTORS[50]], limit=20),
    "recommend by the best score": lambda v: v.recommend(
        ["r003"], ["r050"], limit=30, strategy="best_score"
    ),
    "recommend by every best score": lambda v: v.recommend(
        ["r003"], ["r050"], limit=30, strategy="best_score", exact=True
    ),
    "scroll backwards": lambda v: v.scroll(limit=30, descending=True),
    "ids": lambda v: v.count(where={"$id": ["r000", "other000"]}),
    "mmr_search": lambda v: v.mmr_search(Q, limit=5),
    "multi_search": lambda v: v.multi_search([Q, VECTORS[50]], limit=30),
    "multi_search by count": lambda v: v.multi_search([Q, VECTORS[50]], limit=30, rank="count"),
    "recommend": lambda v: v.recommend(["r003"], ["r050"], limit=30),
    "search_groups": lambda v: v.search_groups(Q, "n", group_size=4),
    "get": lambda v: v.get(["r000", "r119", "other000", "none"]),
    "count": lambda v: v.count(),
    "count where": lambda v: v.count(where={"n": 2}),
    "facet": lambda v: v.facet("n"),
    "aggregate": lambda v: v.aggregate({"of.x": ["min", "mean", "count"]}, group_by="n"),
    "scroll": lambda v: v.scroll(limit=30, after='["r010", null]'),
    "scroll by a field": lambda v: v.scroll(limit=200, order_by="n", with_embedding=True),
    "pages": lambda v: v.search(Q, limit=20, offset=30),
    "stream": streamed,
    "stream_search": streamed_hits,
    "stream_batches": in_batches,
}


@pytest.mark.slow
@pytest.mark.parametrize("model", KINDS)
async def test_reads_are_those_of_a_table_with_this_tenants_rows_alone(
    db: Database, model: type[Any]
) -> None:
    twin, scoped, _ = await filled(db, model)
    for name, read in READS.items():
        assert plain(await read(scoped)) == plain(await read(twin)), name
    async with db.unit_of_work() as uow:
        inside = uow.collection(model, namespace=KINDS[model][0])
        for name, read in READS.items():
            assert plain(await read(inside)) == plain(await read(twin)), name
    probe = await scoped.recall_probe(sample=10)
    assert probe.sample == 10
    assert (await scoped.tune(target_recall=0.5, sample=10)).recall >= 0.5


WRITES: dict[str, Callable[[VectorRepository], Awaitable[Any]]] = {
    "upsert": lambda v: v.upsert(
        [{"id": "r001", "embedding": Q, "payload": {"new": 1}}, {"id": "new", "embedding": Q}]
    ),
    "insert": lambda v: v.insert(records(VECTORS)[5:] + records(VECTORS, "more")),
    "update_many": lambda v: v.update_many(
        [{"id": key, "document": f"of {key}"} for key in ("r007", "other002", "r009", "none")]
    ),
    "ingest": lambda v: v.ingest(records(VECTORS[::-1]), batch_size=7),
    "update": lambda v: v.update("r002", document="changed", embedding=Q),
    "update of nobody": lambda v: v.update("other002", document="changed"),
    "merge_payload": lambda v: v.merge_payload({"z": 1}, remove=["of.x"], ids=["r003", "r004"]),
    "merge_payload where": lambda v: v.merge_payload({"y": 1}, where={"n": 2}),
    "delete": lambda v: v.delete(["r005", "other005", "r006"]),
    "delete_where": lambda v: v.delete_where({"n": 1}),
    "delete the rest": lambda v: v.delete_all(),
}


@pytest.mark.slow
@pytest.mark.parametrize("model", KINDS)
async def test_writes_are_too_and_another_tenants_rows_stay_as_they_are(
    db: Database, model: type[Any]
) -> None:
    twin, scoped, other = await filled(db, model)
    before = plain(await streamed(other))
    assert len(before) == 120
    for name, write in WRITES.items():
        assert await write(scoped) == await write(twin), name
        assert plain(await streamed(scoped)) == plain(await streamed(twin)), name
        assert plain(await streamed(other)) == before, name


async def test_an_example_of_another_tenant_is_not_there(db: Database) -> None:
    _, scoped, other = await filled(db, Beside)
    await other.recommend(["other003"])
    with pytest.raises(NotFoundError):
        await scoped.recommend(["other003"])


async def test_another_tenants_row_is_not_taken_over(db: Database) -> None:
    _, scoped, other = await filled(db, Beside)
    before = plain(await streamed(other))
    for embedding in (VECTORS[0], OTHERS[0]):  # changed or not
        with pytest.raises(ConflictError, match="another namespace"):
            await scoped.upsert(
                [{"id": "mine", "embedding": Q}, {"id": "other000", "embedding": embedding}]
            )
    assert plain(await streamed(other)) == before
    assert await scoped.get(["mine"]) == {}


async def test_of_two_tenants_at_once_one_gets_a_new_id(db: Database) -> None:
    async def take(namespace: str, key: str) -> bool:
        try:
            await db.collection(Beside, namespace=namespace).upsert([{"id": key, "embedding": Q}])
        except ConflictError:
            return False
        return True

    for number in range(30):
        key = f"k{number}"
        done = await asyncio.gather(take("a", key), take("b", key), take("a", key))
        assert done in ([True, False, True], [False, True, False])


async def test_all_namespaces_are_meant_if_that_is_said_and_ids_are_distinct(
    db: Database,
) -> None:
    _, scoped, other = await filled(db, Beside)
    everything = db.collection(Beside, namespace=ALL_NAMESPACES)
    assert await everything.count() == 240
    assert {hit.id for hit in await everything.search(Q, limit=2)} == {"r003", "other003"}
    assert await everything.update("r003", document="by an administrator")
    assert (await scoped.get(["r003"]))["r003"].document == "by an administrator"
    new = [{"id": "nobody's", "embedding": Q}]
    for write in (everything.upsert, everything.upsert_with_zeros, everything.ingest):
        with pytest.raises(InvalidInputError, match="whose a new row is"):
            await write(new)
    with pytest.raises(InvalidInputError, match="whose a new row is"):
        await everything.ingest(new, on_error="skip")
    assert await everything.count() == 240
    assert await other.delete_all() == 120


async def test_what_names_no_namespace_of_this_table_is_refused(db: Database) -> None:
    refused: list[tuple[type[Any], Any, str]] = [
        (InKey, None, "say whose are meant"),
        (Beside, None, "ALL_NAMESPACES for everybody's"),
        (Numbered, None, "say whose are meant"),
        (InKey, ALL_NAMESPACES, "may come again"),
        (Alone, ALL_NAMESPACES, "no namespaces"),
        (Beside, "", "nobody's name"),
        (InKey, "", "nobody's name"),
        (Alone, "a", "no namespaces"),
        (Beside, 1, "pass a str"),
        (Numbered, "7", "pass an int"),
        (Beside, "\x00", "NUL"),
    ]
    for model, namespace, says in refused:
        with pytest.raises(InvalidInputError, match=says):
            db.collection(model, namespace=namespace)


@pytest.mark.parametrize(
    "options", [{"large_namespaces": ("a",)}, {"namespace": "t", "large_namespaces": (1.5,)}]
)
def test_large_namespaces_are_names_of_a_declared_namespace(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="large_namespaces"):
        Collection(VectorSpec(3), **options)


def test_a_namespace_that_may_be_null_is_refused_when_it_is_declared() -> None:
    class Own(DeclarativeBase):
        pass

    with pytest.raises(InvalidInputError, match="may be NULL"):

        class Loose(VectorMixin, Own):
            __tablename__ = "loose"
            __collection__ = Collection(VectorSpec(3), namespace="tenant")

            tenant: Mapped[str | None]


@pytest.mark.slow
async def test_a_large_tenants_searches_walk_an_index_of_its_rows_alone(
    db: Database, empty_dsn: str
) -> None:
    own = "it's a: 50%"
    vectors = RNG.normal(size=(3_000, 8)).astype(np.float32)
    for name, given in (("b", vectors), (own, vectors[:300]), ("a", vectors[:10])):
        await db.collection(Large, namespace=name).ingest(records(given))
    await execute(empty_dsn, "ANALYZE large")
    predicates = await rows(
        empty_dsn,
        "SELECT pg_get_expr(indpred, indrelid) FROM pg_index "
        "WHERE indrelid = 'large'::regclass AND indpred IS NOT NULL ORDER BY 1",
    )
    assert predicates == [
        "(tenant = 'a'::text)",
        "(tenant = 'it''s a: 50%'::text)",
    ]
    scoped = db.collection(Large, namespace=own)
    plan = await scoped.explain(Q, limit=10)
    (used,) = plan.indexes
    declared = {index.name for index in Large.__table__.indexes}  # type: ignore[attr-defined]
    assert used in declared - {"ix_large_vec", "ix_large_vec_a"}
    right = await scoped.search(Q, exact=True)
    assert {hit.id for hit in await scoped.search(Q)} == {hit.id for hit in right}


async def test_a_tenants_partition_is_the_only_one_that_is_read(db: Database) -> None:
    await filled(db, Parts)
    plan = await db.collection(Parts, namespace="a").explain(Q, exact=True)
    assert "parts_a" in plan.text
    assert "parts_b" not in plan.text


async def test_scopes_of_one_table_share_their_statements(db: Database) -> None:
    compiled = compilations(db.engine)
    counts = []
    for name in ("x", "y"):
        scoped = db.collection(InKey, namespace=name)
        await scoped.upsert([VectorRecord("a", Q, {"n": 1})])
        await scoped.update("a", document="d")
        assert (await scoped.get(["a"]))["a"].document == "d"
        assert [hit.id for hit in await scoped.search(Q, where={"n": 1})] == ["a"]
        assert await scoped.delete(["a"]) == 1
        counts.append(len(compiled))
    assert counts[0] == counts[1] >= 5


ELSEWHERE = {
    *("upsert", "upsert_with_zeros", "insert", "ingest", "update", "update_many"),
    "merge_payload",
    *("delete", "delete_where", "delete_all"),
    *("dimensions", "recommend_index", "count_words", "word_statistics"),  # of the whole table
    "fill_words",  # of the default table alone
    *("changeover", "reembed", "switch_to"),  # of a table with the embeddings of two models
    "rotate_keys",  # of a collection with something encrypted
    *("explain", "recall_probe", "tune"),  # by the searches above
}
"""What other tests of this file try, or what is about no rows."""


def test_every_read_of_rows_is_compared() -> None:
    methods = {
        name
        for name, method in inspect.getmembers(VectorRepository)
        if not name.startswith("_")
        and (inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method))
    }
    calls = (*READS.values(), streamed)
    called = {name for call in calls for name in call.__code__.co_names}  # type: ignore[attr-defined]
    inner = [code for code in streamed.__code__.co_consts if hasattr(code, "co_names")]
    called |= {name for code in inner for name in code.co_names}
    assert methods - called == ELSEWHERE
