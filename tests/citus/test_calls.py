"""Every call on a cluster, with the tables spread in each way: the answers are a single node's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import numpy as np
import pytest
from citus.calls import BY_CHANCE, BY_TIME, answers, calls, make_tables
from sqlalchemy import text

from qortex_db import (
    Database,
    InvalidInputError,
    SerializationConflictError,
    Settings,
    migrations,
)
from qortex_db.doctor import examine

if TYPE_CHECKING:
    from qortex_db.migrations import By
    from qortex_db.testing import Server

pytestmark = [pytest.mark.citus, pytest.mark.timeout(600)]

LEFT_OUT = {
    # A clock of the server's where only some records give the column: no form says it. And where
    # json is given, which can't be compared, rows count as written.
    ("Further vectors and the host's own columns", "upsert", "all attributes, of some records"),
    (
        "Further vectors and the host's own columns",
        "update_many",
        "further vectors and attributes of some",
    ),
    # What that would have written before.
    ("Further vectors and the host's own columns", "upsert", "further vectors of some"),
}


@pytest.mark.parametrize("together", [False, True], ids=["alone", "together"])
@pytest.mark.parametrize("by", ["key", "tenant", "schema"])
async def test_answers_are_those_of_a_single_node(
    settings: Settings, server: Server, by: By, *, together: bool
) -> None:
    statement_calls, _ = calls()
    if by == "schema":
        assert await migrations.distribute(settings, by="schema")
    await migrations.upgrade(settings)
    async with Database.connect(settings) as db:
        await make_tables(db, settings.db_schema)
    if by != "schema":
        base = statement_calls.Base
        models: list[Any] = [mapper.class_ for mapper in base.registry.mappers]
        of_tenants = [statement_calls.Mail]
        chosen = of_tenants if by == "tenant" else [one for one in models if one not in of_tenants]
        assert await migrations.distribute(settings, by=by, shards=4, collections=chosen)
        assert not await migrations.distribute(settings, by=by, shards=4, collections=chosen)

    found = await answers(settings, together=together)

    with server.database() as dsn:
        alone = Settings(dsn=dsn, dimensions=8)
        await migrations.upgrade(alone)
        async with Database.connect(alone) as db:
            await make_tables(db, None)
        wanted = await answers(alone, together=together)
    compared = {
        key
        for key in wanted
        if key[1] not in BY_CHANCE
        and not any(word in part for word in BY_TIME for part in key)
        and key not in LEFT_OUT
    }
    differences = {
        key: (found.get(key), wanted[key]) for key in compared if found.get(key) != wanted[key]
    }
    assert differences == {}
    assert len(compared) > 280


async def test_tables_that_are_spread_already_are_upgraded(
    settings: Settings, cluster: str
) -> None:
    await migrations.upgrade(settings, "qortex_db_0001")
    connection = await asyncpg.connect(cluster)
    await connection.execute(f"SET search_path = {settings.db_schema}, public")
    for table, column in {
        "qortex_vectors": "id",
        "interoception_factors": "node_id",
        "interoception_edge_buffer": "src_id",
        "learning_arm_states": "context_hash",
    }.items():
        await connection.execute(
            f"SELECT create_distributed_table('{table}', '{column}', shard_count := 4)"
        )
    await connection.close()

    state = await migrations.upgrade(settings)

    assert state.current == state.head


async def test_the_doctor_looks_at_the_coordinator(migrated: Settings) -> None:
    await migrations.distribute(migrated, shards=4)
    found = await examine(migrated)
    assert [one for one in found if one.fails] == []
    assert [one.check for one in found if one.level == "unknown"] == ["memory"]


async def test_what_is_new_is_not_told_by_several_nodes(migrated: Settings) -> None:
    async with Database.connect(migrated) as db:
        await db.factors.save({"a": 2.0})
        assert (await db.factors.changes()).weights == {"a": 2.0}
        await migrations.distribute(migrated, shards=4)

        with pytest.raises(InvalidInputError, match="several nodes"):
            await db.factors.changes()


async def test_settings_of_a_search_reach_the_nodes(migrated: Settings, cluster: str) -> None:
    """Of one candidate each of four shards brings in few; untold, each would bring in enough."""
    await migrations.distribute(migrated, shards=4)
    async with Database.connect(migrated) as db:
        rng = np.random.default_rng(5)
        made = rng.normal(size=(20_000, 8)).astype(np.float32)
        rows = ({"id": f"{i:05}", "embedding": row} for i, row in enumerate(made))
        await db.vectors.ingest(rows)
        connection = await asyncpg.connect(cluster)
        await connection.execute(f"ANALYZE {migrated.db_schema}.qortex_vectors")
        await connection.close()

        knobs: dict[str, Any] = {"ef_search": 1, "iterative_scan": "off", "complete": "never"}
        few = await db.vectors.search(made[0], limit=40, **knobs)
        async with db.unit_of_work() as uow:
            together = await uow.vectors.search(made[0], limit=40, **knobs)
            after = await uow.vectors.search(made[0], limit=40)
        every = await db.vectors.search(made[0], limit=40)
        plan = await db.vectors.explain(made[0], **knobs)

        assert len(few) < 20
        assert any("ix_qortex_vectors_vec" in name for name in plan.indexes)
        assert len(together) < 20
        assert (len(after), len(every)) == (40, 40)


async def test_answers_are_complete_or_say_so(migrated: Settings) -> None:
    await migrations.distribute(migrated, shards=4)
    async with Database.connect(migrated) as db:
        rows = [
            {"id": f"{i:04}", "embedding": [1.0 + i] + [1.0] * 7, "payload": {"rare": i % 50 == 0}}
            for i in range(1_000)
        ]
        await db.vectors.upsert(rows)
        query, rare = [1.0] * 8, {"rare": True}
        every = await db.vectors.search(query, limit=40, where=rare)
        auto = await db.vectors.search(query, limit=40, where=rare, complete="auto")
        cut = await db.vectors.search(query, limit=40, where=rare, complete="never")
        many = await db.vectors.search_many([query, query[::-1]], limit=40, where=rare)

        assert (len(every), every.complete, every.requested) == (20, True, 40)
        assert ([hit.id for hit in auto], auto.complete) == ([hit.id for hit in every], True)
        assert cut.complete is False
        assert [(len(hits), hits.complete) for hits in many] == [(20, True), (20, True)]


async def test_no_update_of_many_at_once_is_lost(migrated: Settings) -> None:
    await migrations.distribute(migrated, shards=4)
    async with Database.connect(migrated) as db:

        async def observe() -> None:
            for _ in range(10):
                await db.arms.observe("l", "a", reward=1.0)
                await db.edges.record("a", "b", score=0.5)
                await db.factors.adjust({"n": "accepted"})

        await asyncio.gather(*(observe() for _ in range(8)))

        assert (await db.arms.get("l", "a")).pulls == 80
        assert (await db.edges.get("a", "b")).hit_count == 80
        assert (await db.factors.get(["n"]))["n"] == 5.0  # its bound


async def test_writers_of_the_same_rows_end_or_say_that_they_met(migrated: Settings) -> None:
    await migrations.distribute(migrated, shards=4)
    async with Database.connect(migrated) as db:
        ids = [f"{i:03}" for i in range(200)]

        async def write(number: int) -> int:
            met = 0
            for turn in range(10):
                one = [float(number + 1), float(turn + 1), *[1.0] * 6]
                records = [{"id": key, "embedding": one, "payload": {"of": number}} for key in ids]
                some = [*records[:-1], {"id": ids[-1], "embedding": one}]
                try:
                    await db.vectors.upsert(some)
                    await db.vectors.merge_payload({"turn": turn}, where={"of": number})
                except SerializationConflictError:
                    met += 1
            return met

        met = sum(await asyncio.gather(*map(write, range(4))))

        assert met < 40  # of 80 calls
        stored = await db.vectors.get(ids)
        assert len(stored) == 200
        assert len({tuple(record.embedding) for record in stored.values()}) <= 4


async def test_policies_settings_reach_the_nodes(migrated: Settings) -> None:
    """What a view sets for a policy is there where the rows are."""
    await migrations.distribute(migrated, shards=4)
    async with Database.connect(migrated) as db:
        await db.factors.save({"a": 1.5})
        name = f"{migrated.db_schema}.interoception_factors"
        asked = text(f"SELECT DISTINCT current_setting('app.tenant', true) FROM {name}")
        view = db.with_settings({"app.tenant": "acme"})
        async with view.unit_of_work() as uow:
            told = (await uow.session.execute(asked)).scalars().all()

        assert told == ["acme"]
