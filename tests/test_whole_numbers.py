"""Every whole number that the package is given: numpy's are taken, and what only looks like one."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import qortex_db
from qortex_db import (
    HNSW,
    Database,
    Embedding,
    FieldBoost,
    HalfEmbedding,
    InvalidInputError,
    IVFFlat,
    Learner,
    Partitions,
    PgVectorIndex,
    SearchHits,
    Settings,
    SparseEmbedding,
    VectorSpec,
    fold_sparse,
    migrations,
    report,
    repositories,
)
from qortex_db.testing.factories import (
    ArmFactory,
    ArmStateFactory,
    EdgeStatsFactory,
    LearnerConfigFactory,
    SearchHitFactory,
    VectorRecordFactory,
    edges,
    embedding,
    pair,
)
from support.roundtrips import counted
from support.servers import execute

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from qortex_db import UnitOfWork
    from qortex_db.testing import Server
    from support.roundtrips import RoundTrips

_n = itertools.count()
Q = embedding(3, 8)
HITS = SearchHitFactory.build_batch(6)
NUMBER = 4
"""What every call here takes."""


def arms(count: int, **given: Any) -> list[Any]:
    return [ArmFactory.build(id=f"arm{n}", **given) for n in range(count)]


def learner(db: Database, **given: Any) -> Learner:
    return Learner(LearnerConfigFactory.build(**given), store=db, rng=np.random.default_rng(0))


async def plan(db: Database, **options: Any) -> object:
    return (await db.vectors.explain(Q, **options)).indexes


async def groups(db: Database, **options: Any) -> object:
    return await db.vectors.search_groups(Q, "n", **options)


async def scores(db: Database, most: Any) -> object:
    return (await db.edges.record(*pair(98), score=0.5, max_scores=most)).scores


async def numbers(kind: Callable[..., Any], *arguments: Any, **options: Any) -> object:
    """Those that an object keeps."""
    made = kind(*arguments, **options)
    return [value for value in vars(made).values() if isinstance(value, int)]


async def listed(batches: Any) -> list[Any]:
    return [str(batch) async for batch in batches]


async def selected(db: Database, **options: Any) -> object:
    arms_of = options.pop("arms", None) or arms(6, token_cost=1)
    options = {"k": 0, "rng": np.random.default_rng(0)} | options
    return await db.arms.select("l", arms_of, **options)


async def put(db: Database, pulls: Any) -> object:
    await db.arms.put("l", "put", ArmStateFactory.build(pulls=pulls, old=True))
    return await db.arms.get("l", "put")


async def save(db: Database, hits: Any = 1, **options: Any) -> object:
    stats = EdgeStatsFactory.build(hit_count=hits, scores=[0.5] * 6, old=True)
    await db.edges.save({pair(99): stats}, **options)
    return await db.edges.get(*pair(99))


async def embed(db: Database, **options: Any) -> object:
    return await db.embeddings.embed(
        ["a", "b"], model=lambda texts: np.ones((len(texts), NUMBER)), name="m", **options
    )


async def rebuild(db: Database, workers: Any) -> object:
    rebuilt = await migrations.rebuild_index(db._settings, parallel_workers=workers)
    return [index.name for index in rebuilt]


async def chosen(method: str, *arguments: Any, **options: Any) -> object:
    hits = [replace(hit, embedding=np.ones(2, np.float32)) for hit in HITS]
    return repr(
        getattr(SearchHits(hits, requested=6, complete=True), method)(*arguments, **options)
    )


async def reranked(limit: Any) -> object:
    hits = SearchHits(HITS, requested=6, complete=True)
    return [
        hit.id for hit in await hits.rerank("q", lambda _, found: range(len(found)), limit=limit)
    ]


async def spread(shards: Any) -> str:
    return migrations.distribution_sql(Settings(dsn="postgresql://h/d"), shards=shards)


async def counted_rows(uow: UnitOfWork) -> int:
    return await uow.vectors.count()


CALLS: dict[str, Callable[[Database, Any], Any]] = {
    "VectorRepository.search.limit": lambda db, v: db.vectors.search(Q, limit=v),
    "VectorRepository.search.offset": lambda db, v: db.vectors.search(Q, offset=v),
    "VectorRepository.range_search.offset": lambda db, v: db.vectors.range_search(
        Q, min_score=-1, offset=v
    ),
    "VectorRepository.hybrid_search.offset": lambda db, v: db.vectors.hybrid_search(Q, offset=v),
    "VectorRepository.multi_search.offset": lambda db, v: db.vectors.multi_search([Q], offset=v),
    "VectorRepository.search_many.offset": lambda db, v: db.vectors.search_many([Q], offset=v),
    "VectorRepository.recommend.offset": lambda db, v: db.vectors.recommend([Q], offset=v),
    "VectorRepository.stream_search.batch_size": lambda db, v: listed(
        db.vectors.stream_search(Q, batch_size=v)
    ),
    "VectorRepository.search.ef_search": lambda db, v: db.vectors.search(Q, ef_search=v),
    "VectorRepository.search.probes": lambda db, v: db.vectors.search(Q, probes=v),
    "VectorRepository.explain.limit": lambda db, v: plan(db, limit=v),
    "VectorRepository.explain.ef_search": lambda db, v: plan(db, ef_search=v),
    "VectorRepository.explain.probes": lambda db, v: plan(db, probes=v),
    "VectorRepository.range_search.limit": lambda db, v: db.vectors.range_search(
        Q, min_score=-1, limit=v
    ),
    "VectorRepository.mmr_search.limit": lambda db, v: db.vectors.mmr_search(Q, limit=v),
    "VectorRepository.mmr_search.fetch_limit": lambda db, v: db.vectors.mmr_search(
        Q, limit=2, fetch_limit=v
    ),
    "VectorRepository.multi_search.limit": lambda db, v: db.vectors.multi_search([Q], limit=v),
    "VectorRepository.search_many.limit": lambda db, v: db.vectors.search_many([Q], limit=v),
    "Database.run.max_attempts": lambda db, v: db.run(counted_rows, max_attempts=v),
    "DatabaseView.run.max_attempts": lambda db, v: db.options().run(counted_rows, max_attempts=v),
    "VectorRepository.search_groups.limit": lambda db, v: groups(db, limit=v),
    "VectorRepository.search_groups.group_size": lambda db, v: groups(db, group_size=v),
    "VectorRepository.search.fetch_limit": lambda db, v: db.vectors.search(
        Q, limit=2, boost=FieldBoost("n"), fetch_limit=v
    ),
    "VectorRepository.search_groups.fetch_limit": lambda db, v: groups(db, fetch_limit=v),
    "VectorRepository.hybrid_search.limit": lambda db, v: db.vectors.hybrid_search(Q, limit=v),
    "VectorRepository.hybrid_search.k": lambda db, v: db.vectors.hybrid_search(Q, k=v),
    "VectorRepository.hybrid_search.branch_limit": lambda db, v: db.vectors.hybrid_search(
        Q, branch_limit=v
    ),
    "VectorRepository.hybrid_search.branch_limit of one": lambda db, v: db.vectors.hybrid_search(
        Q, branch_limit={"dense": v}
    ),
    "VectorRepository.recommend.limit": lambda db, v: db.vectors.recommend([Q], limit=v),
    "VectorRepository.facet.limit": lambda db, v: db.vectors.facet("n", limit=v),
    "VectorRepository.aggregate.limit": lambda db, v: db.vectors.aggregate(
        {"n": ["sum"]}, group_by="tags", limit=v
    ),
    "VectorRepository.scroll.limit": lambda db, v: db.vectors.scroll(limit=v),
    "VectorRepository.stream.batch_size": lambda db, v: listed(db.vectors.stream(batch_size=v)),
    "VectorRepository.stream_batches.batch_size": lambda db, v: listed(
        db.vectors.stream_batches(batch_size=v)
    ),
    "VectorRepository.ingest.batch_size": lambda db, v: db.vectors.ingest(
        VectorRecordFactory.build_batch(6, dimensions=8), batch_size=v
    ),
    "VectorRepository.rotate_keys.batch_size": lambda db, v: db.vectors.rotate_keys(batch_size=v),
    "VectorRepository.fill_words.batch_size": lambda db, v: db.vectors.fill_words(batch_size=v),
    "VectorRepository.merge_payload.batch_size": lambda db, v: db.vectors.merge_payload(
        {"n": 1}, where={"n": 1}, batch_size=v
    ),
    "VectorRepository.delete_where.batch_size": lambda db, v: db.vectors.delete_where(
        {"n": 77}, batch_size=v
    ),
    "FactorRepository.decay.batch_size": lambda db, v: db.factors.decay(half_life=60, batch_size=v),
    "distribution_sql.shards": lambda _, v: spread(v),
    "ArmRepository.decay.batch_size": lambda db, v: db.arms.decay(
        "l", batch_size=v, resume=f"decay {next(_n)}"
    ),
    "VectorRepository.recall_probe.sample": lambda db, v: db.vectors.recall_probe(sample=v),
    "VectorRepository.recall_probe.limit": lambda db, v: db.vectors.recall_probe(limit=v),
    "VectorRepository.recall_probe.ef_search": lambda db, v: db.vectors.recall_probe(ef_search=v),
    "VectorRepository.tune.sample": lambda db, v: db.vectors.tune(target_recall=0, sample=v),
    "VectorRepository.tune.limit": lambda db, v: db.vectors.tune(target_recall=0, limit=v),
    "VectorRepository.tune.max_ef_search": lambda db, v: db.vectors.tune(
        target_recall=0, max_ef_search=v
    ),
    "VectorRepository.recommend_index.rows": lambda db, v: db.vectors.recommend_index(rows=v),
    "VectorRepository.recommend_index.memory_bytes": lambda db, v: db.vectors.recommend_index(
        rows=10**6, memory_bytes=v
    ),
    "$size": lambda db, v: db.vectors.count(where={"tags": {"$size": v}}),
    "$size of an operator": lambda db, v: db.vectors.count(where={"tags": {"$size": {"$lte": v}}}),
    "SearchHits.rerank.limit": lambda _, v: reranked(v),
    "SearchHits.diverse.limit": lambda _, v: chosen("diverse", limit=v),
    "SearchHits.grouped.limit": lambda _, v: chosen("grouped", "n", limit=v),
    "SearchHits.grouped.group_size": lambda _, v: chosen("grouped", "n", group_size=v),
    "EdgeRepository.save.max_scores": lambda db, v: save(db, max_scores=v),
    "EdgeRepository.record.max_scores": scores,
    "EdgeRepository.record_many.max_scores": lambda db, v: db.edges.record_many(
        [(*pair(97), 0.5)], max_scores=v
    ),
    "EdgeRepository.promote.min_hits": lambda db, v: db.edges.promote(min_hits=v, min_avg_score=2),
    "EdgeRepository.promote.limit": lambda db, v: db.edges.promote(limit=v, min_avg_score=2),
    "EdgeRepository.summary.min_hits": lambda db, v: db.edges.summary(min_hits=v),
    "EdgeStats.hit_count": save,
    "ArmRepository.select.k": lambda db, v: selected(db, k=v),
    "ArmRepository.select.token_budget": lambda db, v: selected(db, token_budget=v),
    "ArmRepository.select.min_pulls": lambda db, v: selected(db, min_pulls=v),
    "ArmRepository.top.k": lambda db, v: db.arms.top("l", k=v),
    "Arm.token_cost": lambda db, v: selected(db, arms=arms(2, token_cost=v)),
    "ArmState.pulls": put,
    "EmbeddingRepository.embed.dimensions": lambda db, v: embed(db, dimensions=v),
    "EmbeddingRepository.embed.batch_size": lambda db, v: embed(db, batch_size=v),
    "EmbeddingRepository.embed.max_rows": lambda db, v: embed(db, max_rows=v),
    "Learner.select.k": lambda db, v: learner(db).select(arms(6), k=v),
    "Learner.select.token_budget": lambda db, v: learner(db).select(
        arms(6, token_cost=1), k=0, token_budget=v
    ),
    "Learner.top_arms.k": lambda db, v: learner(db, name="l").top_arms(k=v),
    "LearnerConfig.min_pulls": lambda db, v: learner(db, min_pulls=v).select(arms(6)),
    "PgVectorIndex.dimensions": lambda db, v: numbers(PgVectorIndex, db, dimensions=v),
    "PgVectorIndex.pool_size": lambda db, v: numbers(PgVectorIndex, db, pool_size=v),
    "PgVectorIndex.search.top_k": lambda db, v: PgVectorIndex(db, dimensions=8).search(Q, v),
    "PgVectorIndex.iter_all.batch_size": lambda db, v: listed(
        PgVectorIndex(db, dimensions=8).iter_all(v)
    ),
    "rebuild_index.parallel_workers": rebuild,
    "HNSW.m": lambda _, v: asyncio.to_thread(HNSW, m=v),
    "HNSW.ef_construction": lambda _, v: asyncio.to_thread(HNSW, m=2, ef_construction=v),
    "IVFFlat.lists": lambda _, v: asyncio.to_thread(IVFFlat, lists=v),
    "VectorSpec.dimensions": lambda _, v: asyncio.to_thread(VectorSpec, v),
    "Partitions.modulus": lambda _, v: asyncio.to_thread(Partitions, v),
    "Embedding.dimensions": lambda _, v: numbers(Embedding, v),
    "HalfEmbedding.dimensions": lambda _, v: numbers(HalfEmbedding, v),
    "SparseEmbedding.dimensions": lambda _, v: numbers(SparseEmbedding, v),
    "SparseEmbedding.max_nonzeros": lambda _, v: numbers(SparseEmbedding, 9, max_nonzeros=v),
    "fold_sparse.dimensions": lambda _, v: asyncio.to_thread(fold_sparse, {0: 1.0}, v),
}

COME_OUT = {
    "Aggregate",
    "AdoptedTable",
    "BranchHit",
    "CacheStats",
    "DimensionMismatchError",
    "EdgeSummary",
    "FacetCount",
    "FactorChanges",
    "FactorSummary",
    "IndexAdvice",
    "IndexProgress",
    "IngestProgress",
    "ModelChange",
    "LearnerMetrics",
    "Posterior",
    "Promotion",
    "RebuiltIndex",
    "RecallProbe",
    "RejectedRecord",
    "Report",
    "SchemaState",
    "SearchGroups",
    "SearchHits",
    "SearchPlan",
    "Selection",
    "SelectionResult",
    "Tuning",
    "WordStatistics",
}
"""What the package makes itself."""
OTHERS = {
    "EpsilonGreedy.scores.rounds",  # policies are called by the package
    "Policy.scores.rounds",
    "ThompsonSampling.scores.rounds",
    "UCB1.scores.rounds",
    "VectorRecord.id",  # stored as its text: tests/repositories/vectors/test_ids.py
    "LimitExceededError.actual",  # the package raises it
    "OutcomeUnknownError.transaction_id",
    "LimitExceededError.allowed",
    "Learner.metrics.window",  # nobody reads it
    "VectorRepository.delete_all.batch_size",  # tests/repositories/test_chunks.py
    "VectorRepository.reembed.batch_size",  # tests/repositories/vectors/test_model_changes.py
    "add_embedding_column.dimensions",
    "distribute.shards",  # as of distribution_sql, on a cluster
}
MODULES = (qortex_db, migrations, repositories, report)
LEFT_OUT = {
    "Settings",  # pydantic reads its numbers, from text too
    "VectorSearches",  # a part of VectorRepository
    "Limits",  # tests/test_limits.py
    "FairPool",  # create_engine makes it, of what Settings checked
    "ExampleText",  # a str
}


def whole_numbers(name: str, owner: Callable[..., Any]) -> Iterator[str]:
    """The parameters of a function, or of a class and its methods, that are whole numbers."""
    if inspect.isfunction(owner) or name not in COME_OUT:
        for parameter in inspect.signature(owner).parameters.values():
            if "int" in str(parameter.annotation).split(" | ") and parameter.name[0] != "_":
                yield f"{name}.{parameter.name}"
    for method in dir(owner) if inspect.isclass(owner) else ():
        made = inspect.getattr_static(owner, method)
        made = getattr(made, "__func__", made)  # of a class method
        if inspect.isfunction(made) and not method.startswith("_"):
            yield from whole_numbers(f"{name}.{method}", made)


def test_every_whole_number_of_the_public_interface_is_tried() -> None:
    public = {name: getattr(module, name) for module in MODULES for name in module.__all__}
    found = {
        parameter
        for name, owner in public.items()
        if (inspect.isclass(owner) or inspect.isfunction(owner)) and name not in LEFT_OUT
        for parameter in whole_numbers(name, owner)
    }
    beyond = {name for name in CALLS if name.startswith("$") or " " in name}
    assert CALLS.keys() - beyond == found - OTHERS
    assert found >= OTHERS


@pytest.fixture(scope="module")
def dsn(server: Server, template: str) -> Iterator[str]:
    """One database for all: what is refused changes nothing, and the rest is done over and over."""
    execute(server, f'CREATE DATABASE numbers TEMPLATE "{template}" STRATEGY FILE_COPY')

    async def fill() -> None:
        async with Database.connect(server.dsn("numbers")) as db:
            records = VectorRecordFactory.build_batch(20, dimensions=8)
            for number, record in enumerate(records):
                payload = {"n": number % 3, "tags": ["x"] * number}
                await db.vectors.upsert([replace(record, payload=payload)])
            await db.edges.save(edges(10) | {pair(98): EdgeStatsFactory.build(scores=[0.5] * 6)})
            await db.arms.observe_many("l", [(f"arm{n}", n / 9) for n in range(9)])

    asyncio.run(fill())
    yield server.dsn("numbers")
    execute(server, "DROP DATABASE numbers WITH (FORCE)")


@pytest.fixture
async def wire(dsn: str) -> AsyncIterator[tuple[Database, RoundTrips]]:
    async with counted(dsn) as trips, Database.connect(Settings(dsn=trips.dsn)) as db:
        yield db, trips


LOOK_ALIKES = [True, np.True_, 4.0, np.float64(4), "4", b"4", Decimal(4), [4]]


@pytest.mark.parametrize("name", CALLS)
async def test_numpys_are_taken_and_what_only_looks_like_one_is_refused_unsent(
    wire: tuple[Database, RoundTrips], name: str
) -> None:
    db, trips = wire
    call = CALLS[name]
    right = repr(await call(db, NUMBER))
    for kind in (np.int64, np.int16, np.uint8):
        assert repr(await call(db, kind(NUMBER))) == right
    before = trips.count
    for value in LOOK_ALIKES:
        with pytest.raises(InvalidInputError, match="whole number"):
            pytest.fail(f"{value!r} was taken: {await call(db, value)}")
    assert trips.count == before
