"""A million rows under every method: each call ends within the time limit, and is right.

What bounds a call is `statement_timeout_seconds`, which is SECONDS here: a call that takes longer
raises `QueryTimeoutError`. `--durations=0` tells what each took.
"""

from __future__ import annotations

import asyncio
import gc
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import numpy as np
import pytest
from sqlalchemy import literal_column
from sqlalchemy.dialects.postgresql import dialect

from qortex_db import (
    ALL_CONTEXTS,
    ArmState,
    Database,
    EdgeStats,
    InvalidInputError,
    QortexVector,
    Settings,
    VectorRecord,
    migrations,
    report,
    repositories,
)
from qortex_db.filters.full_text import kept_words
from support.methods import public_methods

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from qortex_db.testing import Server

pytestmark = [pytest.mark.million, pytest.mark.timeout(1_200)]

ROWS = 1_000_000
DIMENSIONS = 64
SECONDS = 60.0
"""The limit of each statement, the package's default."""
SERVED = {"kind": 7}
"""By the payload's index; a thousandth of the rows."""
UNSERVED = {"n": {"$lte": 1_000}}
"""By no index; as many."""
FEW = {"n": {"$lte": 5}}
Q = np.random.default_rng(5).normal(size=DIMENSIONS).astype(np.float32)
PROCESS = Path("/proc/self/statm")

_words = kept_words(QortexVector.__table__, literal_column("document"))  # type: ignore[arg-type]
WORDS = str(_words["document_words"].compile(dialect=dialect()))  # type: ignore[no-untyped-call]
FILL = (
    "SELECT setseed(0.5)",
    f"""
INSERT INTO qortex_vectors (id, vec, payload, document, document_words)
SELECT id, vec, payload, document, {WORDS} FROM (SELECT 'r' || lpad(i::text, 7, '0') AS id,
  (SELECT array_agg(random() - 0.5)::vector({DIMENSIONS})
   FROM generate_series(1, {DIMENSIONS}) WHERE i > 0) AS vec,
  jsonb_build_object('kind', i % 1000, 'n', i, 'year', 1900 + i % 100) AS payload,
  'w' || i % 5000 || ' of ' || i % 7 AS document
FROM generate_series(1, {ROWS}) i) made""",
    f"""
INSERT INTO interoception_factors (node_id, weight)
SELECT 'n' || i, 0.5 + (i % 10) / 10.0 FROM generate_series(1, {ROWS}) i""",
    f"""
INSERT INTO interoception_edge_buffer (src_id, tgt_id, hit_count, scores)
SELECT 'a' || i, 'b' || i, 1 + i % 4, jsonb_build_array(0.5, (i % 100) / 100.0)
FROM generate_series(1, {ROWS}) i""",
    f"""
INSERT INTO learning_arm_states (learner_name, context_hash, arm_id, alpha, beta, pulls)
SELECT 'l', CASE i % 4 WHEN 0 THEN md5((i % 400)::text) ELSE 'default' END, 'arm' || i,
  1 + i % 100, 2, i % 100 FROM generate_series(1, {ROWS}) i""",
    f"""
INSERT INTO learning_events (learner_name, context_hash, arm_id, kind, alpha, beta, pulls,
  total_reward, last_updated)
SELECT 'l', 'default', 'arm' || i % 1000, 'put', 1 + i % 100, 2, i % 100, 1, now()
FROM generate_series(1, {ROWS}) i""",
    f"""
INSERT INTO qortex_embedding_cache (text_hash, model, revision, dimensions, vec)
SELECT sha256(i::text::bytea), 'm', '', 3, '[1,2,3]' FROM generate_series(1, {ROWS}) i""",
    f"""
INSERT INTO qortex_db_idempotency_keys (key, digest, made_at)
SELECT 'k' || i, '\\x00', now() - interval '1 year' * (i % 2)
FROM generate_series(1, {ROWS}) i""",
)
ORACLE = """
SELECT id, 1 - (vec <=> $1::float4[]::vector) AS score FROM qortex_vectors WHERE {where}
ORDER BY 2 DESC, 1 LIMIT $2
"""


@pytest.fixture(scope="module")
def dsn(server: Server) -> Iterator[str]:
    """A database of a million rows, made once."""
    name = server.create()
    found = server.dsn(name)
    asyncio.run(fill(found))
    yield found
    server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


async def fill(dsn: str) -> None:
    """Migrate, fill without the indexes of vectors and payloads, and build those."""
    await migrations.upgrade(Settings(dsn=dsn, dimensions=DIMENSIONS))
    connection = await asyncpg.connect(dsn)
    made = await connection.fetch(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'qortex_vectors' "
        "AND indexname <> 'pk_qortex_vectors'"
    )
    memory = "SET maintenance_work_mem = '1500MB'; SET max_parallel_maintenance_workers = 2"
    for statement in (memory, *(f"DROP INDEX {name}" for name, _ in made), *FILL):
        await connection.execute(statement)
    for _, definition in made:
        await connection.execute(definition)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    settings = Settings(dsn=dsn, statement_timeout_seconds=SECONDS)
    async with Database.connect(settings) as database:
        yield database


class Asked:
    """What a call is made with, and what is true."""

    def __init__(self, db: Database, connection: asyncpg.Connection[Any]) -> None:
        self.db = db
        self.vectors = db.vectors
        self._connection = connection

    async def value(self, sql: str, *arguments: object) -> Any:
        """One value of SQL's own."""
        return await self._connection.fetchval(sql, *arguments)

    async def nearest(self, where: str = "true", limit: int = 10) -> dict[str, float]:
        """The true neighbours, by comparing with every row."""
        await self._connection.execute("SET enable_indexscan = off")
        rows = await self._connection.fetch(ORACLE.format(where=where), Q.tolist(), limit)
        return {row[0]: row[1] for row in rows}


@pytest.fixture
async def asked(db: Database, dsn: str) -> AsyncIterator[Asked]:
    connection = await asyncpg.connect(dsn)
    yield Asked(db, connection)
    await connection.close()


COVERED: set[Callable[..., Any]] = set()
CALLS: dict[str, Callable[[Asked], Awaitable[None]]] = {}


def call(*methods: Callable[..., Any]) -> Callable[[Any], Any]:
    """Say of which methods a call is."""

    def kept(function: Callable[[Asked], Awaitable[None]]) -> Any:
        COVERED.update(methods)
        CALLS[function.__name__] = function
        return function

    return kept


def test_every_method_of_every_repository_is_called() -> None:
    assert public_methods() - COVERED == set()


V = repositories.VectorRepository
WHERE = {
    "none": (None, "true"),
    "served": (SERVED, "(payload ->> 'kind')::int = 7"),
    "unserved": (UNSERVED, "(payload ->> 'n')::int <= 1000"),
}


def _are(hits: Any, true: dict[str, float], least: float = 1.0) -> None:
    """Hits are rows with their own scores, the best first; so many of them are the best."""
    assert len(hits) == len(true)
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert hits.complete
    found = {hit.id for hit in hits} & true.keys()
    assert len(found) >= least * len(true), (len(found), least)
    assert all(abs(hit.score - true[hit.id]) < 1e-5 for hit in hits if hit.id in true)


for _name, (_where, _sql) in WHERE.items():

    @call(V.search)
    async def search(asked: Asked, where: Any = _where, sql: str = _sql) -> None:
        true = await asked.nearest(sql)
        # Without a filter it is what the index finds: random vectors are the hardest there are.
        _are(await asked.vectors.search(Q, where=where), true, 0.3 if where is None else 0.5)
        _are(await asked.vectors.search(Q, where=where, exact=True), true)

    CALLS[f"search, filter {_name}"] = CALLS.pop("search")


for _complete in ("always", "auto", "never"):

    @call(V.search)
    async def few(asked: Asked, complete: Any = _complete) -> None:
        hits = await asked.vectors.search(Q, where=FEW, complete=complete)
        true = await asked.nearest("(payload ->> 'n')::int <= 5")
        assert {hit.id for hit in hits} <= true.keys()
        assert hits.complete is (len(hits) == len(true)) or not hits.complete
        if complete == "always":
            _are(hits, true)

    CALLS[f"search, five rows match, complete {_complete}"] = CALLS.pop("few")


@call(V.search)
async def search_of_ten_thousand(asked: Asked) -> None:
    hits = await asked.vectors.search(Q, limit=10_000, with_payload=False)
    _are(hits, await asked.nearest(limit=10_000), 0.3)


@call(V.search, V.explain)
async def explain(asked: Asked) -> None:
    assert "ix_qortex_vectors_vec" in (await asked.vectors.explain(Q)).indexes


@call(V.search_many, V.multi_search, V.mmr_search, V.recommend, V.search_groups)
async def searches_of_several(asked: Asked) -> None:
    for where, sql in WHERE.values():
        true = await asked.nearest(sql)
        least = 0.3 if where is None else 0.5
        for hits in await asked.vectors.search_many([Q, Q], where=where):
            _are(hits, true, least)
        _are(await asked.vectors.multi_search([Q, Q], where=where), true, least)
        assert len(await asked.vectors.mmr_search(Q, where=where)) == 10
        hits = await asked.vectors.recommend(["r0000001", Q], where=where)
        assert len(hits) == 10
        assert "r0000001" not in {hit.id for hit in hits}
        groups = await asked.vectors.search_groups(Q, "year", where=where, limit=3)
        assert len(groups) == 3 or where is not None


@call(V.range_search)
async def range_search(asked: Asked) -> None:
    true = await asked.nearest()
    least = min(true.values())
    hits = await asked.vectors.range_search(Q, min_score=least - 1e-6)
    assert {hit.id for hit in hits} >= true.keys()
    hits = await asked.vectors.range_search(Q, min_score=-1.0, where=UNSERVED, limit=2_000)
    assert len(hits) == 1_000


@call(V.stream_search)
async def stream_search(asked: Asked) -> None:
    true = list(await asked.nearest(WHERE["unserved"][1], 1_000))
    got = [hit.id async for hit in asked.vectors.stream_search(Q, where=UNSERVED, batch_size=300)]
    assert sorted(got) == sorted(true)


@call(V.hybrid_search)
async def hybrid_search(asked: Asked) -> None:
    for where, _ in WHERE.values():
        assert len(await asked.vectors.hybrid_search(Q, "w17 of", where=where)) == 10
    assert len(await asked.vectors.hybrid_search(None, "w17")) == 10


@call(V.get)
async def get(asked: Asked) -> None:
    ids = [f"r{i:07}" for i in range(1, ROWS, 100)]
    assert len(await asked.vectors.get(ids)) == len(ids)


@call(V.count, V.clause, V.distance, V.score, V.dimensions, V.changeover)
async def count(asked: Asked) -> None:
    assert await asked.vectors.count() == ROWS
    assert await asked.vectors.count(where=SERVED) == 1_000
    assert await asked.vectors.count(where=UNSERVED) == 1_000
    assert await asked.vectors.dimensions() == DIMENSIONS
    assert await asked.vectors.changeover() is None
    for made in (asked.vectors.clause(SERVED), asked.vectors.distance(Q), asked.vectors.score(Q)):
        assert str(made)


@call(V.facet)
async def facet(asked: Asked) -> None:
    values = await asked.vectors.facet("kind", limit=1_000)
    assert {one.count for one in values} == {1_000}
    values = await asked.vectors.facet("n", limit=10_000)  # as many values as rows
    assert {one.count for one in values} == {1}
    assert len(await asked.vectors.facet("year", where=UNSERVED, limit=200)) == 100


@call(V.aggregate)
async def aggregate(asked: Asked) -> None:
    every = ("min", "max", "mean", "median", "sum", "count", "distinct")
    found = await asked.vectors.aggregate({"n": every})
    assert str(ROWS) in repr(found)
    assert await asked.vectors.aggregate({"n": ["sum"]}, group_by="kind", where=UNSERVED)


@call(V.scroll)
async def scroll(asked: Asked) -> None:
    for options in ({}, {"order_by": "n"}, {"order_by": "n", "descending": True}):
        page = await asked.vectors.scroll(limit=100, **options)
        again = await asked.vectors.scroll(limit=100, after=page.next, **options)
        first, last = page.records[0].payload["n"], again.records[-1].payload["n"]
        assert (first, last) == ((ROWS, ROWS - 199) if "descending" in options else (1, 200))
    assert len((await asked.vectors.scroll(limit=1_000, where=UNSERVED)).records) == 1_000


def resident() -> int:
    """Bytes of this process in memory."""
    return int(PROCESS.read_text().split()[1]) * 4_096


@call(V.stream)
async def stream(asked: Asked) -> None:
    """A page is in memory, however many there are."""
    gc.collect()
    before, most, seen = resident(), 0, 0
    async with aclosing(asked.vectors.stream()) as records:
        async for record in records:
            seen += 1
            if seen % 10_000 == 0:
                most = max(most, resident())
                assert record.payload["n"] == seen
    assert seen == ROWS
    print(f"stream: {(most - before) / 2**20:.1f} MiB above {before / 2**20:.1f}")  # noqa: T201
    assert most - before < 64 * 2**20
    assert [r.payload["n"] async for r in asked.vectors.stream(where=UNSERVED)] == [
        *range(1, 1_001)
    ]


@call(V.stream_batches)
async def stream_batches(asked: Asked) -> None:
    gc.collect()
    before, most, seen = resident(), 0, 0
    async for batch in asked.vectors.stream_batches():
        seen += len(batch.ids)
        most = max(most, resident())
    assert seen == ROWS
    assert most - before < 64 * 2**20


@call(V.recall_probe, V.tune, V.recommend_index)
async def recall_probe(asked: Asked) -> None:
    probe = await asked.vectors.recall_probe(sample=20, ef_search=400)
    assert 0.5 < probe.recall <= 1.0
    assert 1 <= (await asked.vectors.recall_probe(max_seconds=1.0)).sample < 100
    assert (await asked.vectors.tune(target_recall=0.3, sample=10)).recall >= 0.3
    assert (await asked.vectors.recommend_index()).method == "hnsw"


@call(V.word_statistics, V.count_words)
async def count_words(asked: Asked) -> None:
    assert (await asked.vectors.count_words()).documents == ROWS
    assert await asked.vectors.word_statistics() is not None


F = repositories.FactorRepository


@call(F.load, F.get, F.summary, F.changes, F.weight_seeds)
async def factors(asked: Asked) -> None:
    assert len(await asked.db.factors.load()) == ROWS
    assert (await asked.db.factors.get(["n1", "n2", "?"]))["?"] == 1.0
    assert (await asked.db.factors.summary()).count == ROWS
    changes = await asked.db.factors.changes()
    again = await asked.db.factors.changes(changes.cursor)
    assert not again.weights
    assert sum((await asked.db.factors.weight_seeds(["n1", "n2"])).values()) == pytest.approx(1)


@call(F.save, F.adjust, F.decay, F.delete)
async def factors_changed(asked: Asked) -> None:
    await asked.db.factors.save({f"n{i}": 2.0 for i in range(1, 10_001)})
    assert await asked.db.factors.adjust({"n1": "accepted"})
    assert await asked.db.factors.decay(half_life=3_600.0) > 900_000
    assert await asked.db.factors.delete(["n1", "?"]) == 1


E = repositories.EdgeRepository


@call(E.load, E.get, E.summary)
async def edges(asked: Asked) -> None:
    assert len(await asked.db.edges.load()) == ROWS
    assert (await asked.db.edges.get("a1", "b1")).hit_count == 2
    assert (await asked.db.edges.summary()).count == ROWS


@call(E.save, E.record, E.record_many, E.promote, E.remove)
async def edges_changed(asked: Asked) -> None:
    await asked.db.edges.save({("a1", "b1"): EdgeStats(1, [0.5])})
    assert (await asked.db.edges.record("a1", "b1", score=1.0)).hit_count == 2
    assert await asked.db.edges.record_many([(f"a{i}", f"b{i}", 0.0) for i in range(2, 100)]) == 98
    ready = (
        "SELECT count(*) FROM interoception_edge_buffer WHERE hit_count >= 3 "
        "AND ((scores ->> 0)::float8 + (scores ->> 1)::float8) / 2 >= 0.7"
    )
    assert await asked.value(ready) > 20_000
    assert len(await asked.db.edges.promote(min_avg_score=0.7, limit=1_000)) == 1_000
    assert len(await asked.db.edges.promote(min_avg_score=0.7)) > 20_000
    assert await asked.db.edges.remove([("a1", "b1")]) == 1


A = repositories.ArmRepository


@call(A.get, A.get_all, A.get_all_states, A.top, A.contexts, A.read_contexts, A.metrics)
async def arms(asked: Asked) -> None:
    arms = asked.db.arms
    assert (await arms.get("l", "arm1")).alpha == 2.0
    assert len(await arms.get_all("l")) == ROWS * 3 // 4
    assert len(await arms.top("l", k=10)) == 10
    assert len(await arms.contexts("l")) == 101
    await arms.read_contexts("l")
    assert (await arms.metrics("l")).total_pulls == await asked.value(
        "SELECT sum(pulls) FROM learning_arm_states"
    )
    assert sum(map(len, (await arms.get_all_states("l")).values())) == ROWS


@call(A.posteriors, A.select, A.rebuild)
async def arms_compared(asked: Asked) -> None:
    ids = [f"arm{i}" for i in range(1, 5_001)]
    assert len(await asked.db.arms.posteriors("l", ids)) == 3_750
    assert len((await asked.db.arms.select("l", ids, k=3)).selected) == 3
    assert len((await asked.db.arms.rebuild("l"))["default"]) == 1_000


@call(A.put, A.observe, A.observe_many, A.apply_deltas, A.seed, A.decay, A.reset, A.delete)
async def arms_changed(asked: Asked) -> None:
    arms = asked.db.arms
    await arms.put("l", "arm1", ArmState(2.0, 2.0))
    assert (await arms.observe("l", "arm1", reward=1.0)).alpha == 3.0
    ids = [f"arm{i}" for i in range(1, 2_000)]
    assert len(await arms.observe_many("l", [(key, 0.5) for key in ids])) == 1_999
    assert len(await arms.apply_deltas("l", dict.fromkeys(ids, (0.5, 0.5)))) == 1_999
    assert len(await arms.seed("l", ids)) == 1_999
    options = {"batch_size": 5_000, "resume": "million"}
    assert await arms.decay("l", context=ALL_CONTEXTS, **options) >= ROWS  # type: ignore[call-overload]
    assert len(await arms.decay("l", "arm1")) == 1
    assert await arms.reset("l", ids) == 1_999
    assert await arms.delete("l", context=ALL_CONTEXTS) >= ROWS


C = repositories.EmbeddingRepository


@call(C.embed, C.stats, C.clear)
async def embeddings(asked: Asked) -> None:
    def model(texts: list[str]) -> list[list[float]]:
        return [[1.0, 2.0, 3.0] for _ in texts]

    texts = [str(i) for i in range(1, 5_001)]
    made = await asked.db.embeddings.embed(texts, model=model, name="m", max_rows=2 * ROWS)
    assert made.shape == (5_000, 3)
    assert (await asked.db.embeddings.stats()).rows >= ROWS
    assert await asked.db.embeddings.clear("m") >= ROWS


I = repositories.IdempotencyRepository  # noqa: E741


@call(I.claim, I.prune)
async def idempotency(asked: Asked) -> None:
    assert await asked.db.idempotency.claim("new")
    assert await asked.db.idempotency.prune() == ROWS // 2


@call()
async def status_and_report(asked: Asked) -> None:
    for exact in (False, True):
        tables = (await asked.db.status(exact=exact)).tables
        assert tables["qortex_vectors"]["rows"] == pytest.approx(ROWS, rel=0 if exact else 0.05)
    page = report.page(await report.read(asked.db))
    assert "1,000,000" in page
    assert len(page) < 2**20


@call(V.upsert, V.upsert_with_zeros, V.insert, V.update, V.update_many, V.ingest, V.delete)
async def rows_written(asked: Asked) -> None:
    vectors = asked.vectors
    record = VectorRecord("new", Q, {"kind": -1}, "new words")
    assert await vectors.upsert([record]) == 1
    assert await vectors.upsert_with_zeros([{"id": "zero", "embedding": [0.0] * DIMENSIONS}]) == 1
    assert (await vectors.insert([record])).existing == ["new"]
    assert await vectors.update("new", document="other words")
    assert await vectors.update_many([{"id": "new", "document": "others"}]) == 1
    many = ({"id": f"z{i}", "embedding": Q + i / 1_000} for i in range(500))
    assert await vectors.ingest(many, batch_size=100) == 500
    assert (await vectors.search(Q, limit=1))[0].score == pytest.approx(1)
    assert await vectors.delete(["new", "zero", *(f"z{i}" for i in range(500))]) == 502


@call(V.rotate_keys, V.fill_words, V.reembed, V.switch_to)
async def rows_maintained(asked: Asked) -> None:
    assert await asked.vectors.rotate_keys() == 0
    assert await asked.vectors.fill_words(batch_size=10_000) == 0
    for change in (asked.vectors.reembed(into="v2"), asked.vectors.switch_to("v2")):
        with pytest.raises(InvalidInputError, match="of one model alone"):
            await change


@call(V.merge_payload)
async def payloads_merged(asked: Asked) -> None:
    """With the index of vectors in place each changed row is an entry of its: that is the cost."""
    assert await asked.vectors.merge_payload({"m": 1}, where=FEW) == 5
    options = {"batch_size": 100, "resume": "million"}
    assert await asked.vectors.merge_payload({"m": 1}, where=SERVED, **options) == 1_000  # type: ignore[arg-type]
    assert await asked.vectors.merge_payload({"m": 1}, where=UNSERVED, batch_size=100) == 994
    assert await asked.vectors.count(where={"m": 1}) == 1_999


@call(V.delete_where, V.delete_all)
async def rows_deleted(asked: Asked) -> None:
    assert await asked.vectors.delete_where(SERVED) == 1_000
    told: list[int] = []
    half = {"year": {"$lt": 1_950}}
    gone = await asked.vectors.delete_where(half, batch_size=10_000, on_progress=told.append)
    left = await asked.vectors.count()
    assert gone + left == ROWS - 1_000
    assert told[-1] == gone
    assert await asked.vectors.delete_all(batch_size=10_000) == left


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_is_right_within_the_limit_of_a_statement(asked: Asked, name: str) -> None:
    await CALLS[name](asked)
