"""How searches are run: what is not needed costs nothing, and nothing is compared by surprise."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import asyncpg
import numpy as np
import pytest
from sqlalchemy import text

from qortex_db import Database, InvalidInputError, Limits, QortexVector, Settings, migrations
from qortex_db.engine.compiled import Compiled
from qortex_db.filters import read_filter
from qortex_db.models.collection import collection_of
from qortex_db.repositories.vectors.rows.namespaces import scope_of
from qortex_db.repositories.vectors.search.fused_statements import many, multi
from qortex_db.repositories.vectors.search.nearest import SearchForm
from qortex_db.repositories.vectors.search.statements import SearchStatements
from qortex_db.testing.factories import sample
from qortex_db.types import encode
from support.roundtrips import counted
from support.servers import execute, new_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from sqlalchemy import Select

    from qortex_db.testing import Server

TABLE: Any = QortexVector.__table__
STATEMENTS = SearchStatements(TABLE, collection_of(TABLE).vectors["vec"], scope_of(TABLE, None)[0])
SETTINGS = ("hnsw.ef_search", "hnsw.iterative_scan")
ROWS = 6_000
QUERIES = sample().question_embeddings
RARE, HALF = {"rare": True}, {"half": True}
EAGER = """
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
SET min_parallel_index_scan_size = 0; SET max_parallel_workers_per_gather = 2"""
"""So that the planner would take workers wherever it may."""


def rows() -> Iterator[dict[str, Any]]:
    """Around the sample's passages; one of two hundred is rare."""
    passages = sample().passage_embeddings
    noise = np.random.default_rng(0).normal(scale=0.02, size=(ROWS, passages.shape[1]))
    for i in range(ROWS):
        payload = {
            "n": i * 7_919 % ROWS,
            "half": i % 2 == 0,
            "rare": i % 200 == 0,
            "few": i % 2_000 == 0,
        }
        yield {
            "id": f"v{i:05}",
            "embedding": passages[i % len(passages)] + noise[i],
            "payload": payload,
            "document": f"text {i}",
        }


async def fill(dsn: str) -> None:
    async with Database.connect(Settings(dsn=dsn, dimensions=384)) as database:
        await database.vectors.ingest(rows())
        async with database.engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text("VACUUM ANALYZE qortex_vectors"))


@pytest.fixture(scope="module", params=["server", "server16"], ids=["18", "16"])
def filled_dsn(request: pytest.FixtureRequest) -> Iterator[str]:
    """Read only."""
    server: Server = request.getfixturevalue(request.param)
    name = new_name("plans")
    execute(server, f"CREATE DATABASE {name}")
    # So that a walk through the index falls short in a table of this size.
    execute(server, f"ALTER DATABASE {name} SET hnsw.max_scan_tuples = 200")
    dsn = server.dsn(name)

    async def prepare() -> None:
        await migrations.upgrade(Settings(dsn=dsn, dimensions=384))
        await fill(dsn)

    asyncio.run(prepare())
    yield dsn
    execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def db(filled_dsn: str) -> AsyncIterator[Database]:
    async with Database.connect(filled_dsn) as database:
        yield database


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def statements() -> Iterator[tuple[str, Select[Any], dict[str, Any]]]:
    """Each kind of search, with the parameters that it has."""
    common = {
        "candidates": 10,
        "oversampled": 10,
        "hits": 10,
        "ef_search": "200",
        "iterative_scan": "relaxed_order",
        "table_name": "qortex_vectors",
        "max_compared_rows": 1e6,
    }
    queries = {"queries": [encode(query) for query in QUERIES[:4]]}
    one = {"query": encode(QUERIES[0])}
    for bounded in (False, True):
        plain = SearchForm(bounded=bounded)
        yield f"search {bounded}", STATEMENTS.search(None, plain), common | one
        yield f"many {bounded}", many(STATEMENTS.rows, None, plain), common | queries
        yield f"multi {bounded}", multi(STATEMENTS.rows, None, plain), common | queries
        for name, where in (("rare", RARE), ("half", HALF), ("n", {"n": {"$gt": -1}})):
            narrowed = read_filter(where, TABLE)
            probed = 0 if narrowed.served is None else 2_500
            form = SearchForm(bounded=bounded, probed=probed, settings=SETTINGS)
            values = common | narrowed.params
            yield f"search {name} {bounded}", STATEMENTS.search(narrowed, form), values | one
            yield f"many {name} {bounded}", many(STATEMENTS.rows, narrowed, form), values | queries


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_no_search_starts_workers_that_it_may_not_need(filled_dsn: str, mode: str) -> None:
    connection = await asyncpg.connect(filled_dsn, statement_cache_size=0)
    try:
        await connection.execute(f"{EAGER}; SET plan_cache_mode = {mode}")
        # Workers are there to be had.
        by_all = await connection.fetchval(
            "EXPLAIN (FORMAT JSON) SELECT count(*) FROM qortex_vectors WHERE vec IS NOT NULL"
        )
        assert "Gather" in by_all
        async with Database.connect(filled_dsn) as database:
            for name, statement, params in statements():
                compiled = Compiled(statement, database.engine.dialect, {})
                await connection.execute(f"PREPARE looked_at AS {compiled.sql}")
                values = ", ".join(map(literal, compiled.arguments(params)))
                found = await connection.fetchval(
                    f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE looked_at({values})"
                )
                plan = list(nodes(json.loads(found)[0]["Plan"]))
                gathers = [node for node in plan if "Gather" in node["Node Type"]]
                if "True" in name:  # how large the table is: looked up only where it is needed
                    gathers = [node for node in gathers if node["Actual Loops"]]
                assert not gathers, name
                walked = {node.get("Index Name") for node in plan if node["Actual Loops"]}
                assert ("ix_qortex_vectors_vec" in walked) == ("rare" not in name), name
                sorts = [n for n in plan if "+" in str(n.get("Sort Key"))]
                assert sorts, name
                assert not any(node["Actual Loops"] for node in sorts), name
                await connection.execute("DEALLOCATE looked_at")
    finally:
        await connection.close()


def literal(value: Any) -> str:
    if isinstance(value, bytes):
        numbers = np.frombuffer(value, ">f4", offset=4).tolist()
        return f"'{numbers}'"
    if isinstance(value, list):
        return f"ARRAY[{', '.join(map(literal, value))}]::vector[]"
    return f"'{value}'" if isinstance(value, str) else str(value)


async def test_a_plan_is_kept_for_all_limits_below_the_candidates(filled_dsn: str) -> None:
    settings = Settings(dsn=filled_dsn, pool_min_size=1, pool_max_size=1)
    async with Database.connect(settings) as db:
        for limit in (*range(1, 41), 10, 10):
            await db.vectors.search(QUERIES[0], limit=limit)
            await db.vectors.search(QUERIES[0], limit=limit, where=RARE)
        async with db.engine.connect() as connection:
            found = await connection.execute(
                text(
                    "SELECT generic_plans, custom_plans FROM pg_prepared_statements "
                    "WHERE statement LIKE '%LIMIT 40)%' AND statement NOT LIKE '%generic_plans%'"
                )
            )
            plans = sorted(tuple(plan) for plan in found)
    # PostgreSQL plans the first five.
    assert plans == [(37, 5), (37, 5)]


@pytest.mark.parametrize("lane", ["by itself", "together"])
async def test_one_short_answer_costs_the_next_searches_nothing(filled_dsn: str, lane: str) -> None:
    async with counted(filled_dsn) as trips, Database.connect(trips.dsn) as db:

        async def calls(vectors: Any) -> None:
            for limit, where in ((10, None), (40, {"few": True}), (10, None), (40, {"n": -1})):
                hits = await vectors.search(QUERIES[0], limit=limit, where=where)
                assert hits.complete

        await calls(db.vectors)
        if lane == "by itself":
            async with trips.expect(4):
                await calls(db.vectors)
            plan = await db.vectors.explain(QUERIES[0])
        else:
            async with db.unit_of_work() as uow:
                await calls(uow.vectors)
                plan = await uow.vectors.explain(QUERIES[0])
        assert plan.rows_visited <= 10
        assert not plan.compared_every_row


async def test_the_filters_own_index_decides_where_it_finds_few(db: Database) -> None:
    rare = await db.vectors.explain(QUERIES[0], where=RARE)
    assert "ix_qortex_vectors_payload" in rare.indexes
    assert "ix_qortex_vectors_vec" not in rare.indexes
    assert not rare.compared_every_row
    half = await db.vectors.explain(QUERIES[0], where=HALF)
    assert half.indexes == ("ix_qortex_vectors_vec",)  # a sample said so: nothing else was read
    odd = await db.vectors.explain(QUERIES[0], where={"half": False})
    assert odd.indexes == half.indexes  # whose rows lie one by one between the others
    limits = Limits(max_probed_rows=20)
    few = Database.from_engine(db.engine, limits=limits)
    more = await few.vectors.explain(QUERIES[0], where=RARE)
    assert "ix_qortex_vectors_vec" in more.indexes  # 30 rows match, more than 20
    none = Database.from_engine(db.engine, limits=Limits(max_probed_rows=0))
    left = await none.vectors.explain(QUERIES[0], where=HALF)
    assert "_few" in rare.text
    assert "_few" not in left.text


async def test_what_the_index_lacks_is_looked_for_once(empty_dsn: str) -> None:
    await migrations.upgrade(Settings(dsn=empty_dsn, dimensions=384))
    async with counted(empty_dsn) as trips, Database.connect(trips.dsn) as db:
        await db.vectors.ingest(list(rows())[:30])
        for limit, most in ((40, 1), (10, 1), (30, 1), (35, 2), (35, 1), (40, 1), (10, 1), (34, 2)):
            async with trips.expect(most):
                hits = await db.vectors.search(QUERIES[0], limit=limit)
            assert (len(hits), hits.complete) == (min(limit, 30), True)
        async with trips.expect(4):
            for limit in (34, 35, 40, 5):
                await db.vectors.search(QUERIES[0], limit=limit)


async def test_under_policies_no_filters_index_is_looked_at(db: Database) -> None:
    """The server would read the table for it: a policy's condition comes first."""
    role = new_name("reader")
    async with db.unit_of_work() as uow:
        run = uow.session.execute
        await run(text(f"CREATE ROLE {role}"))
        await run(text(f"GRANT SELECT ON qortex_vectors TO {role}"))
        await run(text("CREATE POLICY even ON qortex_vectors USING (document LIKE 'text%0')"))
        await run(text("ALTER TABLE qortex_vectors ENABLE ROW LEVEL SECURITY"))
        await run(text(f"SET LOCAL ROLE {role}"))
        plan = await uow.vectors.explain(QUERIES[0], where={"half": True})
        assert plan.indexes == ("ix_qortex_vectors_vec",)
        hits = await uow.vectors.search(QUERIES[0], where=RARE, limit=40)
        assert hits.complete
        assert {hit.id for hit in hits} == {f"v{i:05}" for i in range(0, ROWS, 200)}
        rare = await uow.vectors.explain(QUERIES[0], where=RARE, complete="never")
        assert rare.indexes == ("ix_qortex_vectors_vec",)
        assert rare.rows_visited < ROWS / 2
        await uow.session.rollback()


@pytest.mark.parametrize("where", [RARE, {"few": True}, {"rare": True, "n": {"$lt": 2_000}}])
async def test_what_is_compared_by_each_is_exact_for_every_kind_of_search(
    db: Database, where: dict[str, Any]
) -> None:
    vectors = db.vectors
    for options in ({}, {"with_embedding": True}, {"with_payload": False}):
        found = await vectors.search(QUERIES[0], where=where, **options)
        right = await vectors.search(QUERIES[0], where=where, exact=True, **options)
        assert [(h.id, h.payload) for h in found] == [(h.id, h.payload) for h in right]
        assert [h.score for h in found] == pytest.approx([h.score for h in right])
    several = await vectors.search_many(QUERIES[:3], where=where)
    for query, answer in zip(QUERIES, several, strict=False):
        alone = await vectors.search(query, where=where, exact=True)
        assert [hit.id for hit in answer] == [hit.id for hit in alone]
    by_any = await vectors.multi_search(QUERIES[:3], where=where)
    right = await vectors.multi_search(QUERIES[:3], where=where, exact=True)
    assert [hit.id for hit in by_any] == [hit.id for hit in right]
    mixed = await vectors.hybrid_search(QUERIES[0], "text", where=where)
    right = await vectors.hybrid_search(QUERIES[0], "text", where=where, exact=True)
    assert [hit.id for hit in mixed] == [hit.id for hit in right]


SEARCHES: dict[str, Any] = {
    "search": lambda v, **o: v.search(QUERIES[0], limit=40, **o),
    "mmr_search": lambda v, **o: v.mmr_search(QUERIES[0], limit=40, **o),
    "multi_search": lambda v, **o: v.multi_search(QUERIES[:2], limit=40, **o),
    "search_many": lambda v, **o: v.search_many(QUERIES[:2], limit=40, **o),
    "search_groups": lambda v, **o: v.search_groups(
        QUERIES[0], "n", limit=40, group_size=1, fetch_limit=40, **o
    ),
    "hybrid_search": lambda v, **o: v.hybrid_search(QUERIES[0], limit=40, branch_limit=40, **o),
    "recommend": lambda v, **o: v.recommend([QUERIES[0]], limit=40, **o),
    "best_score": lambda v, **o: v.recommend([QUERIES[0]], limit=40, strategy="best_score", **o),
}
UNSERVED = {"n": {"$lt": 20}}
"""Twenty rows, and no index that finds them."""


def ids(answer: Any) -> list[set[str]]:
    answers = answer if isinstance(answer, list) else [answer]
    return [{hit.id for each in one for hit in getattr(each, "hits", [each])} for one in answers]


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("lane", ["by itself", "together"])
async def test_complete_says_whether_all_rows_are_compared(
    db: Database, name: str, lane: str
) -> None:
    search = SEARCHES[name]
    twenty = {f"v{i:05}" for i in range(ROWS) if i * 7_919 % ROWS < 20}
    bounded = Database.from_engine(db.engine, limits=Limits(max_compared_rows=ROWS - 1))
    loose = Database.from_engine(db.engine, limits=Limits(complete="auto", max_compared_rows=ROWS))
    never = Database.from_engine(db.engine, limits=Limits(complete="never"))

    async def answer(database: Database, **options: Any) -> tuple[list[set[str]], list[bool]]:
        if lane == "by itself":
            found = await search(database.vectors, where=UNSERVED, **options)
        else:
            async with database.unit_of_work() as uow:
                found = await search(uow.vectors, where=UNSERVED, **options)
                await uow.session.execute(text("SELECT 1"))
        answers = found if isinstance(found, list) else [found]
        return ids(found), [each.complete for each in answers]

    for database, options in ((db, {}), (never, {"complete": "always"}), (loose, {})):
        got, complete = await answer(database, **options)
        assert all(each == twenty for each in got)
        if database is not loose or name not in ("hybrid_search", "recommend", "best_score"):
            assert all(complete)
    for database, options in (
        (never, {}),
        (db, {"complete": "never"}),
        (bounded, {"complete": "auto"}),
    ):
        got, complete = await answer(database, **options)
        assert all(each < twenty for each in got)
        assert not any(complete)


async def test_what_is_told_of_a_short_answer_is_what_happened(db: Database) -> None:
    nothing = {"n": {"$lt": -1}}
    for options, compared in (
        ({}, True),
        ({"complete": "auto"}, True),
        ({"complete": "never"}, False),
    ):
        plan = await db.vectors.explain(QUERIES[0], where=nothing, **options)
        assert plan.compared_every_row is compared  # though no row matched
        hits = await db.vectors.search(QUERIES[0], where=nothing, **options)
        assert (list(hits), hits.complete) == ([], compared)
        off = await db.vectors.search(QUERIES[0], where=nothing, iterative_scan="off", **options)
        assert off.complete is compared
    # What its own index finds is all there is.
    for where in (RARE, {"few": True}):
        hits = await db.vectors.search(QUERIES[0], limit=40, where=where, complete="never")
        assert hits.complete
        assert len(hits) == (30 if where is RARE else 3)


async def test_a_table_that_was_never_analyzed_is_taken_by_its_size(empty_dsn: str) -> None:
    settings = Settings(dsn=empty_dsn, dimensions=384, max_compared_rows=1_000)
    await migrations.upgrade(settings)
    async with Database.connect(settings) as db:
        async with db.unit_of_work() as uow:
            await uow.session.execute(
                text("ALTER TABLE qortex_vectors SET (autovacuum_enabled = off)")
            )
        await db.vectors.upsert([next(rows())])
        small = await db.vectors.search(QUERIES[0], where={"n": {"$lt": -1}}, complete="auto")
        assert small.complete
        await db.vectors.ingest(rows())
        large = await db.vectors.search(QUERIES[0], where={"n": {"$lt": -1}}, complete="auto")
        assert not large.complete
        assert len(await db.vectors.search(QUERIES[0], where=RARE, limit=40)) == 30


@pytest.mark.parametrize("complete", ["sometimes", True, 1, ["never"]])
async def test_complete_takes_three_words(db: Database, complete: Any) -> None:
    with pytest.raises(InvalidInputError, match="complete"):
        await db.vectors.search(QUERIES[0], complete=complete)
    with pytest.raises(InvalidInputError, match="complete"):
        Limits(complete=complete)
