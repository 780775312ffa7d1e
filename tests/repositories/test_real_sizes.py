"""Every method of every repository, on real embeddings and beyond the sizes at which work is cut.

In both lanes, against answers computed in Python and numpy.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, defaultdict
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from cryptography.fernet import Fernet
from numpy.typing import NDArray  # noqa: TC002 - SQLAlchemy resolves Mapped[...]
from sqlalchemy import CheckConstraint, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import (
    ALL_CONTEXTS,
    ArmState,
    Collection,
    ConflictError,
    Database,
    EdgeStats,
    EpsilonGreedy,
    InteroceptionEdge,
    InteroceptionFactor,
    InvalidInputError,
    LearningArmState,
    Promotion,
    QortexVector,
    Settings,
    UnitOfWork,
    VectorMixin,
    VectorRecord,
    VectorSpec,
    context_hash,
    unit_of_work,
    vector_column,
)
from qortex_db.encryption import TOKEN
from qortex_db.engine import loaded as loaded_module
from qortex_db.repositories import (
    ArmRepository,
    EdgeRepository,
    EmbeddingRepository,
    FactorRepository,
    IdempotencyRepository,
    VectorRepository,
)
from qortex_db.repositories.embedding_cache import repository as embedding_cache
from qortex_db.repositories.interoception import edges as edges_module
from qortex_db.repositories.vectors import batches
from qortex_db.testing.factories import (
    ArmFactory,
    ArmStateFactory,
    EdgeStatsFactory,
    VectorRecordFactory,
    embedding,
    pair,
    payload,
    sample,
)
from support import fusion
from support.catalogue import execute as execute_at
from support.full_text import WORDS
from support.methods import public_methods
from support.servers import execute

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )

    from qortex_db import SearchHit
    from qortex_db.testing import Server
    from qortex_db.uow import Repositories

pytestmark = pytest.mark.slow

PART = batches.PART_BYTES // (4 * 384)
EPSILON = 5e-6  # pgvector adds up in float4
SQL = {"task": "sql"}
QUESTIONS = sample().question_embeddings


RECORDS = [  # a third of them without a payload, half of them without a document
    VectorRecordFactory.build(
        payload={"n": number, **payload(number)} if number % 3 else None,
        with_document=number % 2 == 0,
    )
    for number in range(800)
]
IDS = [record.id for record in RECORDS]
MATRIX = np.stack([np.asarray(record.embedding) for record in RECORDS])
UNIT = MATRIX.astype(np.float64) / np.linalg.norm(MATRIX.astype(np.float64), axis=1, keepdims=True)
PAYLOADS = {record.id: dict(record.payload or {}) for record in RECORDS}

Row = tuple[bytes, dict[str, Any], str | None]


def row(record: VectorRecord) -> Row:
    data = np.asarray(record.embedding, dtype=np.float32).tobytes()
    return data, dict(record.payload or {}), record.document


ROWS = {record.id: row(record) for record in RECORDS}


def shuffled(items: Iterable[Any]) -> list[Any]:
    """In an order that is none, the same each time."""
    listed = list(items)
    return [listed[place * 7_919 % len(listed)] for place in range(len(listed))]


def without(stored: Mapping[Any, Any], keys: Iterable[Any]) -> dict[Any, Any]:
    gone = set(keys)
    return {key: value for key, value in stored.items() if key not in gone}


# What is stored. The numbers are eighths and the like, whose sums floats hold exactly.
WEIGHTS = {f"n{number:05}": (number % 321) / 64 for number in range(12_000)}
EDGES = {
    pair(number): EdgeStats(
        number % 9, [(number + k) % 9 / 8 for k in range(number % 5)], "2025-01-01T00:00:00+00:00"
    )
    for number in range(5_200)
}


def rewards(count: int, arms: int) -> list[tuple[str, float]]:
    return [(f"arm{number * 11 % arms:05}", number % 9 / 8) for number in range(count)]


def observed(
    states: Mapping[str, ArmState], given: Iterable[tuple[str, float]]
) -> dict[str, ArmState]:
    after = {key: replace(state) for key, state in states.items()}
    for arm, reward in given:
        state = after.setdefault(arm, ArmState())
        state.alpha += reward
        state.beta += 1 - reward
        state.pulls += 1
        state.total_reward += reward
    return after


LEARNED = {
    "default": observed({}, rewards(9_000, 3_500)),
    context_hash(SQL): observed({}, rewards(4_000, 1_500)),
}
ARMS = LEARNED["default"]
CONTEXTS = [{"page": number} for number in range(300)]
CACHED = [f"text {number}" for number in range(10_500)]


def model(texts: Sequence[str]) -> NDArray[np.float32]:
    """A real embedding by the number in the text."""
    return np.stack([embedding(int(one.rpartition(" ")[2])) for one in texts])


class Host(DeclarativeBase):
    """A host's own."""


class Chapter(VectorMixin, Host):
    """Two bytes a component, further vectors, columns of the host's, and tenants."""

    __tablename__ = "chapters"
    __collection__ = Collection(
        VectorSpec(384, storage="half", index=None), namespace="tenant", namespace_in_key=True
    )
    __table_args__ = (CheckConstraint("year < 3000"),)

    title: Mapped[NDArray[np.float32] | None] = vector_column(VectorSpec(384, "l2", index=None))
    year: Mapped[int | None]
    author: Mapped[str] = mapped_column(server_default="nobody")


class Sealed(VectorMixin, Host):
    """Filled in clear, to be encrypted."""

    __tablename__ = "sealed"
    __collection__ = Collection(
        VectorSpec(384, index=None), encrypted=("module", "text"), encrypted_document=True
    )


KEY = Fernet.generate_key()


async def fill(db: Database) -> None:
    await db.vectors.upsert(RECORDS)
    await db.factors.save(WEIGHTS)
    await db.edges.save(EDGES)
    await db.arms.observe_many("l", rewards(9_000, 3_500))
    await db.arms.observe_many("l", rewards(4_000, 1_500), context=SQL)
    async with db.unit_of_work() as uow:
        for context in CONTEXTS:
            await uow.arms.observe("reader", "a", reward=1.0, context=context)
    await db.embeddings.embed(CACHED, model=model, name="m", batch_size=3_000)
    await db.embeddings.embed(CACHED[:7], model=model, name="other")
    async with db.engine.begin() as connection:
        await connection.run_sync(Host.metadata.create_all)


@pytest.fixture(scope="module")
def filled(server: Server, template384: str) -> Iterator[str]:
    """The name of a database that nobody changes."""
    execute(server, f'CREATE DATABASE real_sizes TEMPLATE "{template384}" STRATEGY FILE_COPY')

    async def run() -> None:
        settings = Settings(dsn=server.dsn("real_sizes"), learning_history=True)
        async with Database.connect(settings) as db:
            await fill(db)
        await execute_at(
            server.dsn("real_sizes"),
            "UPDATE qortex_embedding_cache SET last_used = now() - interval '2 hours'",
            "ANALYZE",
        )

    asyncio.run(run())
    yield "real_sizes"
    execute(server, "DROP DATABASE real_sizes WITH (FORCE)")


@pytest.fixture
def copied(server: Server, filled: str) -> Iterator[str]:
    """A copy of it."""
    execute(server, f"CREATE DATABASE real_sizes_copy TEMPLATE {filled} STRATEGY FILE_COPY")
    yield "real_sizes_copy"
    execute(server, "DROP DATABASE real_sizes_copy WITH (FORCE)")


LANES = ("alone", "together")


@asynccontextmanager
async def lane(dsn: str, name: str) -> AsyncIterator[Repositories]:
    """Each call by itself, or all in a unit of work, which is undone."""
    settings = Settings(dsn=dsn, learning_history=True)
    async with Database.connect(settings, encryption_keys=[KEY]) as db:
        if name == "alone":
            yield db
        else:
            async with db.unit_of_work() as uow:
                yield uow
                await uow.session.rollback()


@pytest.fixture(params=LANES)
def changed(request: pytest.FixtureRequest, server: Server) -> tuple[str, str]:
    """A lane, and a database for it, which is a copy where what is done stays."""
    name = request.getfixturevalue("copied" if request.param == "alone" else "filled")
    return server.dsn(name), request.param


@pytest.fixture
async def memory(changed: tuple[str, str]) -> AsyncIterator[Repositories]:
    """What is stored, to be changed in either lane."""
    async with lane(*changed) as given:
        yield given


@pytest.fixture(params=LANES)
async def stored(
    request: pytest.FixtureRequest, server: Server, filled: str
) -> AsyncIterator[Repositories]:
    """What is stored, to be read in either lane."""
    async with lane(server.dsn(filled), request.param) as given:
        yield given


COVERED: set[Callable[..., Any]] = set()


def of(*methods: Callable[..., Any]) -> Callable[[Any], Any]:
    """Say which methods a test is about."""
    COVERED.update(methods)
    return lambda test: test


def test_every_method_of_every_repository_is_here() -> None:
    assert public_methods() == COVERED


def test_the_sizes_are_beyond_the_limits() -> None:
    assert len(RECORDS) > 10 * PART
    assert len(EDGES) > 10 * edges_module._PART_ROWS
    assert len(CACHED) > embedding_cache._LOOKUP_ROWS > embedding_cache._CLEAR_ROWS
    parameters = len(WEIGHTS), len(EDGES) * 2, len(ARMS) * 3  # of their keys
    assert min(parameters) > loaded_module._MAX_PARAMETERS


async def rows(vectors: VectorRepository) -> dict[str, Row]:
    return {record.id: row(record) async for record in vectors.stream(batch_size=90)}


def cosines(query: Any) -> dict[str, float]:
    query = np.asarray(query, dtype=np.float64)
    return dict(zip(IDS, (UNIT @ (query / np.linalg.norm(query))).tolist(), strict=True))


def assert_best(hits: Sequence[SearchHit], scores: Mapping[str, float], limit: int) -> None:
    """The hits are the best by these scores, as far as float4 can tell."""
    best = sorted(scores.values(), reverse=True)[:limit]
    assert [hit.score for hit in hits] == pytest.approx(best, abs=EPSILON)
    assert [hit.score for hit in hits] == pytest.approx(
        [scores[hit.id] for hit in hits], abs=EPSILON
    )
    assert len({hit.id for hit in hits}) == len(hits)
    assert [hit.id for hit in hits] == [
        hit.id for hit in sorted(hits, key=lambda hit: (-hit.score, hit.id))
    ]


def assert_bodies(hits: Iterable[SearchHit]) -> None:
    for hit in hits:
        assert (hit.payload, hit.document) == ROWS[hit.id][1:]


def narrowed(scores: Mapping[str, float], kind: str = "method") -> dict[str, float]:
    return {key: score for key, score in scores.items() if PAYLOADS[key].get("kind") == kind}


@of(VectorRepository.dimensions, VectorRepository.count)
async def test_vectors_are_counted(stored: Repositories) -> None:
    assert await stored.vectors.dimensions() == 384
    assert await stored.vectors.count() == 800
    methods = sum(payload.get("kind") == "method" for payload in PAYLOADS.values())
    assert await stored.vectors.count(where={"kind": "method"}) == methods
    having = sum("file" in (record.document or "") for record in RECORDS)
    assert await stored.vectors.count(where_document={"$contains": "file"}) == having > PART


@of(VectorRepository.get)
async def test_all_vectors_are_got_by_their_ids(stored: Repositories) -> None:
    found = await stored.vectors.get([*shuffled(IDS), "nobody", IDS[0]])
    assert {key: row(record) for key, record in found.items()} == ROWS
    assert all(record.embedding.dtype == np.float32 for record in found.values())


@of(VectorRepository.facet)
async def test_the_values_of_all_payloads_are_counted(stored: Repositories) -> None:
    for path in ("kind", "module"):
        right = Counter(payload[path] for payload in PAYLOADS.values() if payload)
        found = await stored.vectors.facet(path, limit=1_000)
        assert {one.value: one.count for one in found} == right
        assert [one.count for one in found] == sorted(right.values(), reverse=True)
    assert len(right) > 100
    few = await stored.vectors.facet("module", limit=100)
    assert [one.count for one in few] == sorted(right.values(), reverse=True)[:100]


@of(VectorRepository.aggregate)
async def test_the_values_of_all_payloads_come_to_something(stored: Repositories) -> None:
    numbers = defaultdict(list)
    for one in PAYLOADS.values():
        if one:
            numbers[one["module"]].append(one["n"])
    asked = {"n": ["min", "max", "mean", "median", "sum", "count"], "kind": ["distinct"]}
    groups = await stored.vectors.aggregate(asked, group_by="module", limit=1_000)
    assert {group.value: group.count for group in groups} == Counter(
        {module: len(of) for module, of in numbers.items()}
    )
    for group in groups:
        of = numbers[group.value]
        assert group.of["n"] == {
            "min": min(of),
            "max": max(of),
            "mean": pytest.approx(np.mean(of)),
            "median": np.median(of),
            "sum": sum(of),
            "count": len(of),
        }
    (everything,) = await stored.vectors.aggregate(asked)
    assert everything.count == len(PAYLOADS)
    assert everything.of["kind"] == {
        "distinct": len({one["kind"] for one in PAYLOADS.values() if one})
    }


@of(VectorRepository.scroll)
async def test_pages_follow_one_another_to_the_end(stored: Repositories) -> None:
    with_n = [key for key in IDS if "n" in PAYLOADS[key]]
    for order_by, right in ((None, IDS), ("n", with_n)):
        for descending in (False, True):
            seen: list[VectorRecord] = []
            after = None
            while not seen or after:
                page = await stored.vectors.scroll(
                    limit=90,
                    after=after,
                    order_by=order_by,
                    descending=descending,
                    with_embedding=True,
                )
                seen += page.records
                after = page.next
            assert [record.id for record in seen] == right[:: -1 if descending else 1]
            assert all(row(record) == ROWS[record.id] for record in seen)


@of(VectorRepository.stream)
async def test_a_stream_gives_every_row_page_by_page(stored: Repositories) -> None:
    assert await rows(stored.vectors) == ROWS
    seen = [
        record
        async for record in stored.vectors.stream(
            batch_size=40, where={"kind": "method"}, with_embedding=False
        )
    ]
    assert [record.id for record in seen] == list(narrowed(dict.fromkeys(IDS, 0.0)))
    assert all(record.embedding is None for record in seen)


@of(VectorRepository.stream_batches)
async def test_batches_are_the_matrices_of_what_is_stored(stored: Repositories) -> None:
    kinds = list(narrowed(dict.fromkeys(IDS, 0.0)))
    for where, size, right in ((None, 90, IDS), (None, 800, IDS), ({"kind": "method"}, 40, kinds)):
        batches = [
            batch async for batch in stored.vectors.stream_batches(batch_size=size, where=where)
        ]
        assert [key for batch in batches for key in batch.ids] == right
        assert [len(batch.ids) for batch in batches][:-1] == [size] * (len(batches) - 1)
        matrix = np.concatenate([batch.embeddings for batch in batches])
        assert (matrix.dtype, matrix.shape) == (np.float32, (len(right), 384))
        assert [row.tobytes() for row in matrix] == [ROWS[key][0] for key in right]


@of(VectorRepository.search)
async def test_a_search_finds_the_nearest(stored: Repositories) -> None:
    for number, limit in ((0, 10), (1, 300), (2, 800)):
        scores = cosines(QUESTIONS[number])
        for options in ({"exact": True}, {"ef_search": 1_000}):
            hits = await stored.vectors.search(QUESTIONS[number], limit=limit, **options)
            assert_best(hits, scores, limit)
            assert_bodies(hits)
            within = await stored.vectors.search(
                QUESTIONS[number], limit=limit, where={"kind": "method"}, **options
            )
            assert_best(within, narrowed(scores), limit)
        near = await stored.vectors.search(
            QUESTIONS[number], limit=800, min_score=0.2, exact=True, with_embedding=True
        )
        assert {hit.id for hit in near} == {key for key, score in scores.items() if score >= 0.2}
        assert all(hit.embedding.tobytes() == ROWS[hit.id][0] for hit in near)


@of(VectorRepository.clause, VectorRepository.distance, VectorRepository.score)
async def test_a_hosts_own_statement_has_the_rows_of_a_search(stored: Repositories) -> None:
    vectors = stored.vectors
    distance, score = vectors.distance(QUESTIONS[0]), vectors.score(QUESTIONS[0])
    statement = (
        select(QortexVector.id, score)
        .where(vectors.clause({"kind": "method"}))
        .order_by(distance, QortexVector.id)
        .limit(200)
    )
    found = (await vectors._vectors.executor.run(statement, {})).rows
    options = {"limit": 200, "where": {"kind": "method"}, "exact": True}
    hits = await vectors.search(QUESTIONS[0], **options)
    assert [row[0] for row in found] == [hit.id for hit in hits]
    assert [row[1] for row in found] == pytest.approx([hit.score for hit in hits])


@of(VectorRepository.explain)
async def test_a_plan_says_that_every_row_was_compared(stored: Repositories) -> None:
    plan = await stored.vectors.explain(QUESTIONS[0], limit=300, exact=True)
    assert (plan.rows_visited, plan.indexes, plan.compared_every_row) == (800, (), True)


@of(VectorRepository.range_search)
async def test_a_range_has_all_that_are_near(stored: Repositories) -> None:
    scores = cosines(QUESTIONS[0])
    near = {key: score for key, score in scores.items() if score >= 0.1}
    hits = await stored.vectors.range_search(QUESTIONS[0], min_score=0.1)
    assert_best(hits, near, len(near))
    assert hits.complete
    assert_bodies(hits)
    cut = await stored.vectors.range_search(QUESTIONS[0], min_score=0.1, limit=len(near) - 1)
    assert_best(cut, near, len(near) - 1)
    assert not cut.complete


@of(VectorRepository.mmr_search)
async def test_varied_hits_are_those_of_the_definition(stored: Repositories) -> None:
    scores = cosines(QUESTIONS[0])
    left = sorted(scores, key=lambda key: (-scores[key], key))[:300]
    unit = dict(zip(IDS, UNIT, strict=True))
    chosen: list[str] = []
    for _ in range(40):
        gains = {
            key: 0.3 * scores[key] - 0.7 * max((unit[key] @ unit[one] for one in chosen), default=0)
            for key in left
        }
        chosen.append(max(left, key=lambda key: gains[key]))  # of equals the first
        left.remove(chosen[-1])
    hits = await stored.vectors.mmr_search(
        QUESTIONS[0], limit=40, fetch_limit=300, lambda_=0.3, exact=True
    )
    assert [hit.id for hit in hits] == chosen
    assert [hit.score for hit in hits] == pytest.approx([scores[k] for k in chosen], abs=EPSILON)
    assert_bodies(hits)


@of(VectorRepository.search_groups)
async def test_groups_have_the_best_of_each_value(stored: Repositories) -> None:
    scores = cosines(QUESTIONS[0])
    right: dict[str, list[str]] = {}
    for key in sorted(scores, key=lambda key: (-scores[key], key)):
        if PAYLOADS[key]:
            right.setdefault(PAYLOADS[key]["module"], []).append(key)
    options: dict[str, Any] = {"limit": 100, "group_size": 5, "exact": True}
    groups = await stored.vectors.search_groups(QUESTIONS[0], "module", fetch_limit=801, **options)
    cut = await stored.vectors.search_groups(QUESTIONS[0], "module", fetch_limit=800, **options)
    assert len(right) > 100
    assert [(group.value, [hit.id for hit in group.hits]) for group in groups] == [
        (value, keys[:5]) for value, keys in list(right.items())[:100]
    ]
    assert (groups.complete, cut.complete) == (True, False)  # of 800 rows
    assert_bodies(hit for group in groups for hit in group.hits)


@of(VectorRepository.rotate_keys)
async def test_what_was_in_clear_is_encrypted(memory: Repositories) -> None:
    columns = "id, payload, document"
    copy = f"INSERT INTO sealed ({columns}) SELECT {columns} FROM qortex_vectors RETURNING 1"
    await memory.executor.run(text(copy), {})
    done: list[int] = []
    sealed = memory.collection(Sealed)
    wanted = sum("module" in one[1] or one[2] is not None for one in ROWS.values())
    assert 500 < wanted < 800
    assert await sealed.rotate_keys(batch_size=150, on_progress=done.append) == wanted
    assert done == [150, 300, 450, 600, 750, 800]
    stored = await sealed.get(shuffled(IDS))
    assert {key: (one.payload, one.document) for key, one in stored.items()} == {
        key: one[1:] for key, one in ROWS.items()
    }
    in_clear = select(Sealed.id).where(
        Sealed.document.not_like(f"{TOKEN}%")
        | Sealed.payload["module"].astext.not_like(f"{TOKEN}%")
    )
    assert not (await memory.executor.run(in_clear, {})).rows
    assert await sealed.rotate_keys() == 0


@of(VectorRepository.hybrid_search)
async def test_meaning_and_words_are_fused_by_their_ranks(stored: Repositories) -> None:
    words = "file or path or name or return"
    query = (
        "SELECT id, ts_rank_cd(d, q) FROM qortex_vectors, "
        f"{WORDS} d, websearch_to_tsquery('english', :words) q WHERE d @@ q"
    )
    lexical = dict((await stored.executor.run(text(query), {"words": words})).rows)
    near = {key: round(score, 6) for key, score in cosines(QUESTIONS[0]).items()}
    total = fusion.by_ranks([near, lexical], [150, 150], [1, 1], similar=near)
    assert len(lexical) > 150
    hits = await stored.vectors.hybrid_search(
        QUESTIONS[0], words, limit=200, branch_limit=150, exact=True, match="websearch"
    )
    right = fusion.best(total, 200, near)
    assert [hit.id for hit in hits] == right
    assert [hit.score for hit in hits] == pytest.approx([total[key] for key in right], abs=EPSILON)
    assert_bodies(hits)


@of(VectorRepository.multi_search)
async def test_several_queries_have_one_answer(stored: Repositories) -> None:
    each = [cosines(question) for question in QUESTIONS[:32]]
    best = {key: max(scores[key] for scores in each) for key in IDS}
    hits = await stored.vectors.multi_search(QUESTIONS[:32], limit=300, exact=True)
    assert_best(hits, best, 300)
    assert_bodies(hits)


@of(VectorRepository.stream_search)
async def test_all_rows_come_in_the_order_of_a_search(stored: Repositories) -> None:
    hits = [hit async for hit in stored.vectors.stream_search(QUESTIONS[0], batch_size=90)]
    assert_best(hits, cosines(QUESTIONS[0]), len(IDS))
    assert_bodies(hits)


@of(VectorRepository.search_many)
async def test_each_of_several_queries_has_its_answer(stored: Repositories) -> None:
    answers = await stored.vectors.search_many(QUESTIONS[:32], limit=100, exact=True)
    assert len(answers) == 32
    for question, hits in zip(QUESTIONS, answers, strict=False):
        assert_best(hits, cosines(question), 100)
        assert_bodies(hits)


@of(VectorRepository.recommend)
async def test_recommendations_are_like_the_liked_and_no_example(stored: Repositories) -> None:
    liked, disliked = IDS[::5], IDS[1::9]
    good, bad = UNIT[::5].mean(axis=0), UNIT[1::9].mean(axis=0)
    examples = {*liked, *disliked}
    scores = {k: score for k, score in cosines(2 * good - bad).items() if k not in examples}
    hits = await stored.vectors.recommend(liked, disliked, limit=300, exact=True)
    assert_best(hits, scores, 300)
    assert_bodies(hits)
    nearest = {key: (UNIT[:140:7] @ one).max() for key, one in zip(IDS, UNIT, strict=True)}
    farthest = {key: (UNIT[1:140:14] @ one).max() for key, one in zip(IDS, UNIT, strict=True)}
    examples = {*IDS[:140:7], *IDS[1:140:14]}
    scores = {
        key: nearest[key] if nearest[key] > farthest[key] else -(farthest[key] ** 2)
        for key in IDS
        if key not in examples
    }
    hits = await stored.vectors.recommend(
        IDS[:140:7], IDS[1:140:14], limit=800, strategy="best_score", exact=True
    )
    assert_best(hits, scores, 800)


@of(VectorRepository.recall_probe, VectorRepository.tune, VectorRepository.recommend_index)
async def test_the_index_is_judged_by_exact_answers(stored: Repositories) -> None:
    probe = await stored.vectors.recall_probe(sample=60, limit=50, ef_search=1_000)
    assert (probe.sample, probe.limit, probe.ef_search) == (60, 50, 1_000)
    assert probe.recall == pytest.approx(1.0, abs=1e-3)  # of rows that are equally near, another
    tuning = await stored.vectors.tune(target_recall=0.99, sample=60, limit=20)
    assert tuning.recall == tuning.tried[tuning.ef_search] >= 0.99
    assert all(recall < 0.99 for ef, recall in tuning.tried.items() if ef < tuning.ef_search)
    advice = await stored.vectors.recommend_index()
    assert advice.method == "none"
    assert advice.index_bytes == int(800 * (4 * 384 + 256 + 60) / 0.85)


def upserted(before: Mapping[str, Row], given: Iterable[VectorRecord]) -> dict[str, Row]:
    """The rows after an upsert: of a repeated id the last counts, and None leaves what is there."""
    after = dict(before)
    for record in given:
        _, payload, document = after.get(record.id, (b"", {}, None))
        after[record.id] = (
            row(record)[0],
            payload if record.payload is None else dict(record.payload),
            document if record.document is None else record.document,
        )
    return after


def changes() -> list[VectorRecord]:
    """Old and new rows, in no order, some of them twice, and each with other fields."""
    found = []
    for number in range(300):
        key = IDS[number] if number % 5 else f"w{number:05}"
        data = MATRIX[number if number % 7 == 0 else (number * 3) % 800]
        payload = {"new": number} if number % 2 else None
        document = f"words of {number}" if number % 3 else None
        found.append(VectorRecord(key, data, payload, document))
    again = [
        VectorRecord(record.id, MATRIX[-number], None if number % 2 else {"again": number})
        for number, record in enumerate(found[::4], 1)
    ]
    return shuffled(found) + again


@of(VectorRepository.upsert)
async def test_the_last_of_an_id_counts_whatever_part_it_is_in(memory: Repositories) -> None:
    given = changes()
    right = upserted(ROWS, given)
    changed = {key for key in right if right[key] != ROWS.get(key)}
    assert len(changed) < len({record.id for record in given}) < len(given)
    assert await memory.vectors.upsert(given) == len(changed)
    assert await rows(memory.vectors) == right
    assert await memory.vectors.upsert(given) == 0


@of(VectorRepository.upsert_with_zeros)
async def test_zero_vectors_in_each_part_are_kept_and_no_hits(memory: Repositories) -> None:
    zero = np.zeros(384, dtype=np.float32)
    given = [replace(record, embedding=zero) for record in RECORDS[: 3 * PART : 10]]
    given += [replace(record, embedding=MATRIX[0]) for record in RECORDS[1 : 3 * PART : 10]]
    right = upserted(ROWS, given)
    changed = sum(right[key] != ROWS[key] for key in IDS)
    assert await memory.vectors.upsert_with_zeros(shuffled(given)) == changed
    assert await rows(memory.vectors) == right
    scores = {
        key: score
        for key, score in zip(IDS, (UNIT @ UNIT[0]).tolist(), strict=True)
        if any(np.frombuffer(right[key][0], np.float32))
    }
    scores |= {key: 1.0 for key in IDS if right[key][0] == ROWS[IDS[0]][0]}
    hits = await memory.vectors.search(MATRIX[0], limit=800, exact=True)
    assert_best(hits, scores, 800)


@of(VectorRepository.ingest)
async def test_batches_of_many_parts_are_ingested(memory: Repositories) -> None:
    given = [replace(record, id=f"x{record.id}") for record in RECORDS[:330]]
    done: list[int] = []

    async def source() -> AsyncIterator[VectorRecord]:
        for record in given:
            yield record

    count = await memory.vectors.ingest(source(), batch_size=150, on_progress=done.append)
    assert (count, done) == (330, [150, 300, 330])
    assert await rows(memory.vectors) == upserted(ROWS, given)


@of(VectorRepository.update)
async def test_one_of_many_rows_is_updated(memory: Repositories) -> None:
    after = dict(ROWS)
    after[IDS[500]] = (ROWS[IDS[1]][0], {"new": [1]}, "new words")
    assert await memory.vectors.update(
        IDS[500], embedding=MATRIX[1], payload={"new": [1]}, document="new words"
    )
    assert not await memory.vectors.update("nobody", document="new words")
    assert await rows(memory.vectors) == after


@of(VectorRepository.update_many)
async def test_many_rows_are_updated_each_its_own(memory: Repositories) -> None:
    after = dict(ROWS)
    given: list[dict[str, Any]] = [{"id": "nobody", "document": "new words"}]
    for place, key in enumerate(IDS[:700]):
        data, payload, document = after[key]
        if place % 2:
            after[key] = (data, {"new": [place]}, document)
            given.append({"id": key, "payload": {"new": [place]}})
        else:
            after[key] = (ROWS[IDS[place + 1]][0], payload, f"words {place}")
            given.append({"id": key, "embedding": MATRIX[place + 1], "document": f"words {place}"})
    assert await memory.vectors.update_many(shuffled(given)) == 700
    assert await rows(memory.vectors) == after


@of(VectorRepository.insert)
async def test_many_rows_are_inserted_where_they_are_new(memory: Repositories) -> None:
    new = [replace(record, id=f"new {record.id}") for record in RECORDS]
    told = await memory.vectors.insert(shuffled([*RECORDS, *new]))
    assert told.new == [record.id for record in new]
    assert told.existing == IDS
    assert await rows(memory.vectors) == ROWS | {record.id: row(record) for record in new}


@of(VectorRepository.fill_words)
async def test_the_words_of_all_documents_are_filled(memory: Repositories) -> None:
    change = "UPDATE qortex_vectors SET document_words = NULL WHERE id < :key"
    done: list[int] = []
    assert await memory.vectors.fill_words(batch_size=150) == 0
    await memory.executor.run(text(change), {"key": IDS[700]})
    wanted = sum(ROWS[key][2] is not None for key in IDS[:700])
    assert await memory.vectors.fill_words(batch_size=150, on_progress=done.append) == wanted
    assert done == [150, 300, 450, 600, 750, 800]
    assert await rows(memory.vectors) == ROWS
    wrong = f"SELECT id FROM qortex_vectors WHERE document_words IS DISTINCT FROM {WORDS}"
    statement = text(wrong.replace(":-@", r"\:-@"))
    assert not (await memory.executor.run(statement, {})).rows


@of(VectorRepository.changeover, VectorRepository.reembed, VectorRepository.switch_to)
async def test_a_table_of_one_model_has_none_to_change_to(memory: Repositories) -> None:
    """How a change goes is in vectors/test_model_changes.py."""
    assert await memory.vectors.changeover() is None
    with pytest.raises(InvalidInputError, match="one model alone"):
        await memory.vectors.reembed(lambda texts: texts, into="v2")
    with pytest.raises(InvalidInputError, match="one model alone"):
        await memory.vectors.switch_to("v2")


@of(VectorRepository.count_words, VectorRepository.word_statistics)
async def test_the_words_of_all_documents_are_counted(memory: Repositories) -> None:
    counted = await memory.vectors.count_words()
    documents = [row[2] for row in ROWS.values() if row[2] is not None]
    assert (counted.documents, counted.changed) == (len(documents), 0)
    assert counted == await memory.vectors.word_statistics()
    query = (
        f"SELECT count(*) FROM qortex_vectors, unnest({WORDS}) GROUP BY lexeme HAVING count(*) > 1"
    )
    statement = text(query.replace(":-@", r"\:-@"))
    assert counted.words == len((await memory.executor.run(statement, {})).rows) > 500
    question = sample().questions[3]["text"]
    assert_bodies(await memory.vectors.hybrid_search(None, question, limit=150))


@of(VectorRepository.hybrid_search)
async def test_any_word_of_a_question_finds_documents(stored: Repositories) -> None:
    for number, question in enumerate(one["text"] for one in sample().questions):
        hits = await stored.vectors.hybrid_search(None, question, limit=150)
        assert len(hits) > 0
        both = await stored.vectors.hybrid_search(QUESTIONS[number], question, limit=150)
        assert {hit.id for hit in hits[:50]} <= {hit.id for hit in both}
    assert_bodies(both)


@of(VectorRepository.merge_payload)
async def test_all_payloads_are_merged(memory: Repositories) -> None:
    def merged(ids: Iterable[str]) -> dict[str, Row]:
        changed = {
            key: {k: v for k, v in before[key][1].items() if k != "module"} | {"kind": "x", "b": 1}
            for key in ids
        }
        return {key: (before[key][0], payload, before[key][2]) for key, payload in changed.items()}

    before = dict(ROWS)
    given: dict[str, Any] = {"values": {"kind": "x", "b": 1}, "remove": ["module"]}
    ids = IDS[::2]
    before |= merged(ids)
    assert await memory.vectors.merge_payload(ids=shuffled(ids), **given) == 400
    assert await rows(memory.vectors) == before
    before |= merged(IDS)
    assert (
        await memory.vectors.merge_payload(where=QortexVector.id.is_not(None), **given) == 400
    )  # the others would not change
    assert await rows(memory.vectors) == before


@of(VectorRepository.delete, VectorRepository.delete_where, VectorRepository.delete_all)
async def test_hundreds_of_rows_are_deleted(memory: Repositories) -> None:
    gone = IDS[50:450]
    assert await memory.vectors.delete([*shuffled(gone), "nobody", gone[0]]) == 400
    left = without(ROWS, gone)
    assert await rows(memory.vectors) == left
    kept_rows = {key: one for key, one in left.items() if one[1].get("kind") != "method"}
    count = await memory.vectors.delete_where({"kind": "method"})
    assert count == len(left) - len(kept_rows) > PART
    assert await rows(memory.vectors) == kept_rows
    assert await memory.vectors.delete_all() == len(kept_rows) > PART
    assert await rows(memory.vectors) == {}


Fields = tuple[bytes, dict[str, Any], str | None, bytes | None, int | None, str]


def halved(data: Any) -> NDArray[np.float32]:
    return np.asarray(data, dtype=np.float32).astype(np.float16).astype(np.float32)


def chapters() -> list[VectorRecord]:
    """Each gives other fields than the next, so that every part has some of all kinds."""
    return [
        VectorRecord(
            f"c{number:05}",
            MATRIX[number],
            {"n": number, "even": number % 2 == 0} if number % 3 else None,
            f"words of {number}" if number % 4 else None,
            {"title": MATRIX[-number - 1]} if number % 5 else None,
            {"year": number} if number % 7 else None,
        )
        for number in range(300)
    ]


def rewritten() -> list[VectorRecord]:
    """Old and new ones with fewer fields, further vectors that are cleared, and some ids twice."""
    found = [
        VectorRecord(
            f"c{number:05}",
            MATRIX[number if number % 2 else number + 1],
            {"again": number} if number % 9 == 0 else None,
            None,
            {"title": None} if number % 6 == 0 else {},
            {"author": f"author {number}"} if number % 8 == 0 else {"year": None},
        )
        for number in range(100, 350)
    ]
    again = [replace(one, embedding=MATRIX[7], attributes={"year": 7}) for one in found[::3]]
    return shuffled(found) + again


def written(before: Mapping[str, Fields], given: Iterable[VectorRecord]) -> dict[str, Fields]:
    """The rows after an upsert: of a repeated id the last counts, field by field."""
    after = dict(before)
    for one in given:
        _, payload, document, title, year, author = after.get(
            one.id, (b"", {}, None, None, None, "nobody")
        )
        vectors, attributes = one.vectors or {}, one.attributes or {}
        if "title" in vectors:
            title = vectors["title"] if vectors["title"] is None else vectors["title"].tobytes()
        after[one.id] = (
            halved(one.embedding).tobytes(),
            payload if one.payload is None else dict(one.payload),
            document if one.document is None else one.document,
            title,
            attributes.get("year", year),
            attributes.get("author", author),
        )
    return after


def fields(record: VectorRecord) -> Fields:
    attributes, title = record.attributes or {}, (record.vectors or {})["title"]
    data, payload, document = row(record)
    title = None if title is None else title.tobytes()
    return data, payload, document, title, attributes["year"], attributes["author"]


async def all_fields(vectors: VectorRepository) -> dict[str, Fields]:
    return {record.id: fields(record) async for record in vectors.stream(batch_size=90)}


async def test_a_namespace_of_a_hosts_collection_is_written_part_by_part(
    memory: Repositories,
) -> None:
    mine, theirs = (memory.collection(Chapter, namespace=name) for name in ("ada", "bob"))
    await theirs.upsert(chapters())
    others = written({}, chapters())
    assert await mine.upsert(shuffled(chapters())) == 300
    right = written({}, chapters())
    assert await all_fields(mine) == right
    after = written(right, rewritten())
    changed = sum(after[key] != right.get(key) for key in after)
    assert await mine.upsert(rewritten()) == changed < len(after)
    assert await all_fields(mine) == after
    assert await mine.upsert(rewritten()) == 0
    found = await mine.get(after)
    assert {key: fields(record) for key, record in found.items()} == after
    again = [replace(record, id=f"d{record.id}") for record in found.values()]
    assert await mine.ingest(iter(again), batch_size=130) == 350
    after |= {f"d{key}": values for key, values in after.items()}
    assert await all_fields(mine) == after
    assert await all_fields(theirs) == others


async def test_a_namespace_of_a_hosts_collection_is_searched_and_changed(
    memory: Repositories,
) -> None:
    mine, theirs = (memory.collection(Chapter, namespace=name) for name in ("ada", "bob"))
    await theirs.upsert(chapters())
    await mine.upsert([replace(one, embedding=MATRIX[-1 - n]) for n, one in enumerate(chapters())])
    right = await all_fields(mine)
    query = halved(QUESTIONS[0]).astype(np.float64)
    lengths = {key: np.frombuffer(one[0], np.float32).astype(float) for key, one in right.items()}
    scores = {
        key: float(data @ query / np.linalg.norm(data) / np.linalg.norm(query))
        for key, data in lengths.items()
    }
    assert_best(await mine.search(QUESTIONS[0], limit=200), scores, 200)
    titles = {key: np.frombuffer(one[3], np.float32) for key, one in right.items() if one[3]}
    distances = {
        key: -float(np.linalg.norm(title.astype(float) - QUESTIONS[0]))
        for key, title in titles.items()
    }
    assert len(titles) == 240
    assert_best(await mine.search(QUESTIONS[0], limit=300, using="title"), distances, 300)

    evens = sum(one[1].get("even") is True for one in right.values())
    assert await mine.merge_payload({"even": None}, where={"even": True}) == evens > PART
    odd = {key for key, one in right.items() if one[1].get("even") is False}
    assert await mine.delete_where({"even": False}) == len(odd)
    left = {
        key: (one[0], {**one[1], "even": None} if one[1] else {}, *one[2:])
        for key, one in without(right, odd).items()
    }
    assert await all_fields(mine) == left
    assert await mine.count() == len(left)
    assert await all_fields(theirs) == written({}, chapters())


BAD: dict[str, Any] = {
    "NaN": [math.nan] * 384,
    "other dimensions": [1.0] * 383,
    "no numbers": ["1"] * 384,
}


@pytest.mark.parametrize("bad", BAD)
async def test_a_record_refused_in_the_last_part_leaves_nothing_behind(
    memory: Repositories, bad: str
) -> None:
    given = [*changes(), VectorRecord("zzz", BAD[bad])]
    with pytest.raises(InvalidInputError, match=rf"row {len(given) - 1} \(id 'zzz'\)"):
        await memory.vectors.upsert(given)
    assert await rows(memory.vectors) == ROWS
    ingested = [replace(record, id=f"x{record.id}") for record in RECORDS[:300]]
    with pytest.raises(InvalidInputError, match=r"batch 3 \(rows 260 to 300\).*row 300"):
        await memory.vectors.ingest([*ingested, given[-1]], batch_size=130)
    assert await rows(memory.vectors) == upserted(ROWS, ingested[:260])


async def test_what_the_server_refuses_in_the_last_part_leaves_nothing_behind(
    memory: Repositories,
) -> None:
    async def write(memory: Repositories) -> None:
        late = VectorRecord("zzz", MATRIX[0], attributes={"year": 3_000})
        await memory.collection(Chapter, namespace="ada").upsert([*chapters(), late])

    async def write_in_a_savepoint(uow: UnitOfWork) -> None:
        async with unit_of_work(uow.session) as savepoint:
            await write(savepoint)

    with pytest.raises(ConflictError, match="year"):
        await (write_in_a_savepoint if isinstance(memory, UnitOfWork) else write)(memory)
    assert await all_fields(memory.collection(Chapter, namespace="ada")) == {}


@of(FactorRepository.load, FactorRepository.get, FactorRepository.weight_seeds)
async def test_thousands_of_weights_are_read(stored: Repositories) -> None:
    assert await stored.factors.load() == WEIGHTS
    wanted = [*shuffled(WEIGHTS)[:9_001], "nobody", "nobody else"]
    right = {node: WEIGHTS.get(node, 1.0) for node in wanted}
    found = await stored.factors.get(wanted)
    assert list(found.items()) == list(right.items())
    total = sum(right.values())
    shares = await stored.factors.weight_seeds(wanted)
    assert shares == {node: weight / total for node, weight in right.items()}


@of(FactorRepository.summary)
async def test_the_summary_is_over_all_weights(stored: Repositories) -> None:
    summary = await stored.factors.summary()
    weights = np.array(list(WEIGHTS.values()))
    assert (summary.count, summary.min, summary.max) == (12_000, weights.min(), weights.max())
    assert (summary.boosted, summary.penalised) == ((weights > 1).sum(), (weights < 1).sum())
    assert summary.mean == pytest.approx(weights.mean(), rel=1e-12)
    shares = weights[weights > 0] / weights.sum()
    assert summary.entropy == pytest.approx(-(shares * np.log2(shares)).sum(), rel=1e-9)


@of(FactorRepository.save)
async def test_thousands_of_weights_are_saved_over_others(memory: Repositories) -> None:
    given = {f"n{number:05}": number / 8 for number in shuffled(range(1_000, 14_001))}
    await memory.factors.save(given)
    assert await memory.factors.load() == WEIGHTS | given
    with pytest.raises(InvalidInputError, match="weight of 'zzz'"):
        await memory.factors.save(dict.fromkeys(WEIGHTS, 9.0) | {"zzz": math.inf})
    assert await memory.factors.load() == WEIGHTS | given


@of(FactorRepository.adjust)
async def test_thousands_of_weights_are_adjusted(memory: Repositories) -> None:
    deltas = {"accepted": 0.1, "rejected": -0.05, "partial": 0.03}
    nodes = shuffled([*list(WEIGHTS)[:10_000], *(f"new{number}" for number in range(501))])
    outcomes = {node: list(deltas)[place % 3] for place, node in enumerate(nodes)}
    right = {
        node: min(5.0, max(0.1, WEIGHTS.get(node, 1.0) + deltas[outcome]))
        for node, outcome in outcomes.items()
    }
    assert await memory.factors.adjust(outcomes) == right
    assert await memory.factors.load() == WEIGHTS | right


@of(FactorRepository.decay)
async def test_thousands_of_weights_decay(memory: Repositories) -> None:
    some = shuffled(WEIGHTS)[:7_000]
    at_one = dict.fromkeys(some, 1.0)  # after so many half-lives
    moved = sum(WEIGHTS[node] != 1 for node in some)
    assert await memory.factors.decay(half_life=1e-6, node_ids=some) == moved
    assert await memory.factors.load() == WEIGHTS | at_one
    others = sum(weight != 1 for weight in (WEIGHTS | at_one).values())
    assert await memory.factors.decay(half_life=1e-6) == others
    assert await memory.factors.load() == dict.fromkeys(WEIGHTS, 1.0)


@of(FactorRepository.changes)
async def test_a_copy_of_thousands_of_weights_is_told_what_was_written(
    memory: Repositories,
) -> None:
    everything = await memory.factors.changes()
    assert (everything.weights, everything.count) == (WEIGHTS, 12_000)
    given = {f"n{number:05}": 9.0 for number in range(6_000, 12_500)}
    await memory.factors.save(given)
    told = await memory.factors.changes()
    assert (told.weights, told.count) == (WEIGHTS | given, 12_500)
    if isinstance(memory, Database):  # a cursor is for what was committed
        told = await memory.factors.changes(everything.cursor)
        assert (told.weights, told.count) == (given, 12_500)


@of(FactorRepository.delete)
async def test_thousands_of_weights_are_deleted(memory: Repositories) -> None:
    gone = shuffled(WEIGHTS)[:7_000]
    assert await memory.factors.delete([*gone, "nobody", gone[0]]) == 7_000
    assert await memory.factors.load() == without(WEIGHTS, gone)


def timeless(edges: Mapping[tuple[str, str], EdgeStats]) -> dict[tuple[str, str], EdgeStats]:
    return {key: replace(stats, last_seen="") for key, stats in edges.items()}


@of(EdgeRepository.load, EdgeRepository.get)
async def test_thousands_of_edges_are_read(stored: Repositories) -> None:
    assert await stored.edges.load() == EDGES
    src, tgt = pair(4_321)
    assert await stored.edges.get(tgt, src) == EDGES[src, tgt]


@of(EdgeRepository.summary)
async def test_the_summary_is_over_all_edges(stored: Repositories) -> None:
    hits = [stats.hit_count for stats in EDGES.values()]
    ready = sum(s.hit_count >= 5 and s.avg_score >= 0.5 for s in EDGES.values())
    summary = await stored.edges.summary(min_hits=5, min_avg_score=0.5)
    assert (summary.count, summary.total_hits, summary.max_hits) == (5_200, sum(hits), max(hits))
    assert summary.mean_hits == pytest.approx(sum(hits) / len(hits))
    assert summary.ready_to_promote == ready > 250


@of(EdgeRepository.save)
async def test_edges_of_many_parts_are_saved_over_others(memory: Repositories) -> None:
    numbers = shuffled(range(4_700, 5_601))
    given = {
        pair(n)[:: -1 if n % 2 else 1]: EdgeStatsFactory.build(
            hit_count=n,
            scores=[(n + k) / 8 for k in range(n % 4)],
            last_seen=f"2025-01-{1 + n % 28:02}T00:00:00Z",
        )
        for n in numbers
    }
    for number in range(4_700, 5_600, 100):  # the other way round: the last counts
        given[pair(number)[::-1]] = EdgeStatsFactory.build(scores=[number], old=True)
    right = {
        tuple(sorted(key)): replace(
            stats, scores=stats.scores[-2:], last_seen=stats.last_seen.replace("Z", "+00:00")
        )
        for key, stats in given.items()
    }
    await memory.edges.save(given, max_scores=2)
    assert await memory.edges.load() == EDGES | right
    with pytest.raises(InvalidInputError, match="score"):
        await memory.edges.save(EDGES | {("y", "z"): EdgeStatsFactory.build(scores=[math.nan])})
    assert await memory.edges.load() == EDGES | right


def recorded(
    before: Mapping[tuple[str, str], EdgeStats], given: Iterable[tuple[str, str, float]], most: int
) -> dict[tuple[str, str], EdgeStats]:
    after = timeless(before)
    scores: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for src, tgt, score in given:
        scores[min(src, tgt), max(src, tgt)].append(score)
    for key, new in scores.items():
        old = after.get(key, EdgeStats())
        after[key] = EdgeStats(old.hit_count + len(new), [*old.scores, *new][-most:])
    return after


@of(EdgeRepository.record, EdgeRepository.record_many)
async def test_thousands_of_observations_are_recorded(memory: Repositories) -> None:
    given = [
        (*pair(4_500 + number * 7 % 1_501)[:: -1 if number % 2 else 1], number % 9 / 8)
        for number in range(6_000)
    ]
    right = recorded(EDGES, given, 5)
    assert await memory.edges.record_many(given, max_scores=5) == 1_501
    assert timeless(await memory.edges.load()) == right
    src, tgt = pair(3)
    right = recorded(right, [(src, tgt, 0.5)], 3)
    assert timeless({(src, tgt): await memory.edges.record(tgt, src, score=0.5, max_scores=3)}) == {
        (src, tgt): right[src, tgt]
    }
    assert timeless(await memory.edges.load()) == right


@of(EdgeRepository.remove)
async def test_thousands_of_edges_are_removed(memory: Repositories) -> None:
    gone = shuffled(EDGES)[:4_000]
    keys = [key[:: -1 if place % 2 else 1] for place, key in enumerate(gone)]
    assert await memory.edges.remove([*keys, ("no", "body"), keys[0]]) == 4_000
    assert await memory.edges.load() == without(EDGES, gone)


@of(EdgeRepository.promote)
async def test_thousands_of_edges_are_promoted_the_best_first(memory: Repositories) -> None:
    ready = [
        Promotion(*key, stats.hit_count, stats.avg_score)
        for key, stats in EDGES.items()
        if stats.hit_count >= 2 and stats.avg_score >= 0.25
    ]
    ready.sort(key=lambda p: (-p.hit_count, -p.avg_score, p.src_id, p.tgt_id))
    options: dict[str, Any] = {"min_hits": 2, "min_avg_score": 0.25}
    assert len(ready) > 2_500
    assert await memory.edges.promote(limit=np.int64(700), **options) == ready[:700]
    assert await memory.edges.promote(**options) == ready[700:]
    gone = [(promotion.src_id, promotion.tgt_id) for promotion in ready]
    assert await memory.edges.load() == without(EDGES, gone)


Learned = dict[str, dict[str, ArmState]]


def numbers(state: ArmState) -> ArmState:
    """A state without its time."""
    return replace(state, last_updated="")


def numbers_of(states: Mapping[str, ArmState]) -> dict[str, ArmState]:
    return {key: numbers(state) for key, state in states.items()}


async def learned(memory: Repositories) -> Learned:
    """The states of the learner, which its history leads to as well."""
    states = await memory.arms.get_all_states("l")
    assert await memory.arms.rebuild("l") == states
    return {context: numbers_of(arms) for context, arms in states.items()}


@of(
    ArmRepository.get,
    ArmRepository.get_all,
    ArmRepository.get_all_states,
    ArmRepository.rebuild,
)
async def test_thousands_of_arms_are_read(stored: Repositories) -> None:
    assert await learned(stored) == LEARNED
    assert numbers(await stored.arms.get("l", "arm03210")) == ARMS["arm03210"]
    assert numbers_of(await stored.arms.get_all("l")) == ARMS
    wanted = shuffled(ARMS)[:2_500]
    found = await stored.arms.get_all("l", [*wanted, "nobody"], context=SQL)
    of_sql = LEARNED[context_hash(SQL)]
    assert numbers_of(found) == {key: of_sql[key] for key in wanted if key in of_sql}


@of(ArmRepository.top, ArmRepository.posteriors)
async def test_thousands_of_arms_are_ranked(stored: Repositories) -> None:
    best = sorted(ARMS.items(), key=lambda item: (-item[1].mean, item[0]))
    found = await stored.arms.top("l", k=3_000)
    assert [(key, numbers(state)) for key, state in found] == best[:3_000]
    posteriors = await stored.arms.posteriors("l")
    assert list(posteriors) == sorted(ARMS)
    for key, one in posteriors.items():
        a, b = ARMS[key].alpha, ARMS[key].beta
        assert (one.mean, one.pulls) == (a / (a + b), ARMS[key].pulls)
        assert one.variance == pytest.approx(a * b / (a + b) ** 2 / (a + b + 1), rel=1e-12)
        assert one.low < one.mean < one.high


@of(ArmRepository.metrics, ArmRepository.contexts, ArmRepository.read_contexts)
async def test_metrics_and_contexts_are_over_all_arms(stored: Repositories) -> None:
    metrics = await stored.arms.metrics("l")
    assert (metrics.arm_count, metrics.context_count) == (5_000, 2)
    assert metrics.total_pulls == 13_000
    given = [*rewards(9_000, 3_500), *rewards(4_000, 1_500)]
    assert metrics.total_reward == sum(reward for _, reward in given)
    right = {context_hash(context): context for context in CONTEXTS}
    assert await stored.arms.contexts("reader") == sorted(right)
    assert await stored.arms.read_contexts("reader") == right


@of(ArmRepository.select)
async def test_the_best_of_thousands_of_arms_are_selected(memory: Repositories) -> None:
    candidates = [ArmFactory.build(id=key, token_cost=2) for key in shuffled(ARMS)]
    order = sorted(candidates, key=lambda arm: -ARMS[arm.id].mean)  # of equals the first
    chosen = await memory.arms.select(
        "l", candidates, k=700, token_budget=1_000, baseline_rate=0, policy=EpsilonGreedy(0.0)
    )
    assert chosen.selected == tuple(arm.id for arm in order[:500])
    left = {arm.id for arm in order[500:]}
    assert chosen.excluded == tuple(arm.id for arm in candidates if arm.id in left)
    assert chosen.scores == {key: state.mean for key, state in ARMS.items()}
    assert chosen.used_tokens == 1_000
    query = "SELECT arm_id, probability FROM learning_events WHERE kind = 'select'"
    logged = dict((await memory.executor.run(text(query), {})).rows)
    assert logged == dict.fromkeys(chosen.selected, 1.0)


@of(ArmRepository.observe, ArmRepository.observe_many)
async def test_thousands_of_rewards_are_counted(memory: Repositories) -> None:
    given = rewards(10_000, 3_700)
    after = observed(ARMS, given)
    states = await memory.arms.observe_many("l", iter(given))
    assert numbers_of(states) == {key: after[key] for key in sorted({arm for arm, _ in given})}
    assert await learned(memory) == LEARNED | {"default": after}
    after = observed(after, [("arm00001", 0.25)])
    state = await memory.arms.observe("l", "arm00001", reward=0.25)
    assert numbers(state) == after["arm00001"]
    with pytest.raises(InvalidInputError, match="reward"):
        await memory.arms.observe_many("l", [*given, ("zzz", 1.5)])
    assert await learned(memory) == LEARNED | {"default": after}


@of(ArmRepository.put)
async def test_one_of_many_arms_is_put(memory: Repositories) -> None:
    given = ArmStateFactory.build(pulled=True, old=True)
    await memory.arms.put("l", "arm00007", given, context=SQL)
    assert await memory.arms.get("l", "arm00007", context=SQL) == given
    key = context_hash(SQL)
    after = LEARNED[key] | {"arm00007": numbers(given)}
    assert await learned(memory) == LEARNED | {key: after}


@of(ArmRepository.apply_deltas)
async def test_thousands_of_arms_are_credited(memory: Repositories) -> None:
    deltas = {
        f"arm{number:05}": (number % 17 / 8 - 1, number % 5 / 4)
        for number in shuffled(range(1_000, 3_801))
    }
    after = dict(ARMS)
    for key, (up, down) in deltas.items():
        old = ARMS.get(key, ArmState())
        after[key] = ArmState(
            max(old.alpha + up, 0.01),
            max(old.beta + down, 0.01),
            old.pulls + 1,
            old.total_reward + up,
        )
    states = await memory.arms.apply_deltas("l", deltas)
    assert list(states) == sorted(deltas)
    assert numbers_of(states) == {key: after[key] for key in deltas}
    assert await learned(memory) == LEARNED | {"default": after}


@of(ArmRepository.decay)
async def test_thousands_of_arms_decay(memory: Repositories) -> None:
    after = {
        context: {
            key: replace(
                state,
                alpha=max(state.alpha / 2, 0.01),
                beta=max(state.beta / 2, 0.01),
                total_reward=state.total_reward / 2,
            )
            for key, state in arms.items()
        }
        for context, arms in LEARNED.items()
    }
    states = await memory.arms.decay("l", factor=0.5, context=ALL_CONTEXTS)
    assert {context: numbers_of(arms) for context, arms in states.items()} == after
    assert await learned(memory) == after


@of(ArmRepository.seed)
async def test_thousands_of_arms_are_seeded_where_they_are_not_there(memory: Repositories) -> None:
    ids = [f"arm{number:05}" for number in shuffled(range(2_000, 5_001))]
    after = {key: ARMS.get(key, ArmState(3.0)) for key in sorted(ids)}
    states = await memory.arms.seed("l", ids, boost=3.0)
    assert list(states) == sorted(ids)
    assert numbers_of(states) == after
    assert await learned(memory) == LEARNED | {"default": ARMS | after}
    after |= {key: ArmState(4.0) for key in after if key not in ARMS}  # as qortex does
    states = await memory.arms.seed("l", ids, boost=4.0, unpulled=True)
    assert numbers_of(states) == after
    assert await learned(memory) == LEARNED | {"default": ARMS | after}


@of(ArmRepository.reset, ArmRepository.delete)
async def test_thousands_of_arms_are_reset_and_deleted(memory: Repositories) -> None:
    some = shuffled(ARMS)[:2_000]
    assert await memory.arms.reset("l", [*some, "nobody"]) == 2_000
    after = ARMS | dict.fromkeys(some, ArmState())
    assert await learned(memory) == LEARNED | {"default": after}
    gone = some[1_000:] + [*without(ARMS, some)][:1_000]
    assert await memory.arms.delete("l", [*gone, "nobody"]) == 2_000
    left = without(after, gone)
    assert await learned(memory) == LEARNED | {"default": left}
    assert await memory.arms.delete("l", context=ALL_CONTEXTS) == len(left) + 1_500
    assert await learned(memory) == {}


@of(EmbeddingRepository.embed, EmbeddingRepository.stats)
async def test_what_is_cached_of_many_texts_is_not_computed_again(memory: Repositories) -> None:
    new = [f"new {number}" for number in range(333)]
    texts = shuffled([*CACHED, *new, *new[::2], *CACHED[::5]])
    missing = list(dict.fromkeys(one for one in texts if one.startswith("new")))
    asked: list[list[str]] = []

    def counted(given: list[str]) -> NDArray[np.float32]:
        asked.append(given)
        return model(given)

    options: dict[str, Any] = {"model": counted, "name": "m", "batch_size": 150}
    assert np.array_equal(await memory.embeddings.embed(texts, **options), model(texts))
    assert asked == [missing[:150], missing[150:300], missing[300:]]
    assert np.array_equal(await memory.embeddings.embed(texts, **options), model(texts))
    assert len(asked) == 3
    stats = await memory.embeddings.stats()
    assert (stats.rows, stats.models) == (10_840, {"m": 10_833, "other": 7})
    assert stats.bytes > 10_840 * 4 * 384
    # All had been used two hours ago, and those of the other model still were.
    query = "SELECT count(*) FROM qortex_embedding_cache WHERE last_used < now() - interval '1 h'"
    assert (await memory.executor.run(text(query), {})).rows[0][0] == 7


@of(EmbeddingRepository.clear)
async def test_a_model_of_many_texts_is_cleared(memory: Repositories) -> None:
    assert await memory.embeddings.clear("nobody") == 0
    assert await memory.embeddings.clear("m") == 10_500
    assert (await memory.embeddings.stats()).models == {"other": 7}
    assert await memory.embeddings.clear() == 7
    assert (await memory.embeddings.stats()).rows == 0


@of(IdempotencyRepository.claim, IdempotencyRepository.prune)
async def test_thousands_of_keys_are_forgotten_in_batches(memory: Repositories) -> None:
    # By a fixed text: SQLAlchemy's way to say it would be longer than what is tested.
    old = text(
        "INSERT INTO qortex_db_idempotency_keys SELECT 'key ' || n, ''::bytea, "
        "now() - interval '1 day' FROM generate_series(1, 12001) n RETURNING 1"
    )
    await memory.executor.run(old, {})
    assert await memory.idempotency.claim("new")
    assert not await memory.idempotency.claim("new")
    assert await memory.idempotency.prune(older_than=3_600) == 12_001
    assert await memory.idempotency.claim("key 1")


LOADED: dict[str, tuple[Any, Callable[[Repositories], Awaitable[object]], dict[Any, Any]]] = {
    "factors": (
        select(InteroceptionFactor.node_id, InteroceptionFactor),
        lambda memory: memory.factors.adjust(dict.fromkeys(WEIGHTS, "accepted")),
        {node: min(5.0, max(0.1, weight + 0.1)) for node, weight in WEIGHTS.items()},
    ),
    "edges": (
        select(InteroceptionEdge.src_id, InteroceptionEdge),
        lambda memory: memory.edges.record_many((*key, 0.5) for key in EDGES),
        {key[0]: stats.hit_count + 1 for key, stats in EDGES.items()},
    ),
    "arms": (
        select(LearningArmState.arm_id, LearningArmState).filter_by(
            learner_name="l", context_hash="default"
        ),
        lambda memory: memory.arms.observe_many("l", [(key, 1.0) for key in ARMS]),
        {key: state.pulls + 1 for key, state in ARMS.items()},
    ),
}


@pytest.mark.parametrize("name", LOADED)
async def test_more_objects_than_a_query_has_parameters_show_what_was_written(
    server: Server, filled: str, name: str
) -> None:
    statement, change, right = LOADED[name]
    column = {"factors": "weight", "edges": "hit_count", "arms": "pulls"}[name]
    async with lane(server.dsn(filled), "together") as uow:
        loaded = dict((await uow.session.execute(statement)).all())
        await change(uow)
        assert {key: getattr(one, column) for key, one in loaded.items()} == right


async def test_more_objects_than_a_query_has_parameters_leave_the_session_with_their_rows(
    server: Server, filled: str
) -> None:
    async with lane(server.dsn(filled), "together") as uow:
        loaded = (await uow.session.scalars(select(InteroceptionFactor))).all()
        gone = set(shuffled(WEIGHTS)[:11_000])
        await uow.factors.delete(gone)
        assert {one.node_id for one in loaded if one not in uow.session} == gone
