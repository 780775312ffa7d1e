"""Every call on a cluster, with the tables spread in each way: the answers are a single node's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from citus.calls import BY_CHANCE, BY_TIME, answers, calls, make_tables

from qortex_db import Database, InvalidInputError, Settings, migrations

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


async def test_what_is_new_is_not_told_by_several_nodes(migrated: Settings) -> None:
    async with Database.connect(migrated) as db:
        await db.factors.save({"a": 2.0})
        assert (await db.factors.changes()).weights == {"a": 2.0}
        await migrations.distribute(migrated, shards=4)

        with pytest.raises(InvalidInputError, match="several nodes"):
            await db.factors.changes()


async def test_settings_of_a_search_reach_the_nodes(migrated: Settings) -> None:
    """Where the index finds a part alone, the search still finds what there is."""
    await migrations.distribute(migrated, shards=4)
    async with Database.connect(migrated) as db:
        rows = [
            {
                "id": f"{i:05}",
                "embedding": [1.0 + i % 97, *[float(i % 7 + 1)] * 7],
                "payload": {"odd": i % 100 == 0},
            }
            for i in range(3_000)
        ]
        await db.vectors.upsert(rows)
        query = [1.0] * 8
        right = await db.vectors.search(query, limit=30, where={"odd": True}, exact=True)
        found = await db.vectors.search(query, limit=30, where={"odd": True}, complete="never")

        assert [hit.score for hit in found] == pytest.approx([hit.score for hit in right])
