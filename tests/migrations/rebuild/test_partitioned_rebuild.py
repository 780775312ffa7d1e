"""`index rebuild` of a partitioned table: part by part, from wherever an earlier call has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from qortex_db import Database, NotFoundError, Settings
from qortex_db.migrations import rebuild_index
from qortex_db.migrations.rebuild.owned_table import OwnedTable
from support.catalogue import execute, rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MAKE = """
CREATE TABLE logs (tenant int, id int, vec vector(384), PRIMARY KEY (tenant, id))
  PARTITION BY LIST (tenant);
CREATE TABLE logs_one PARTITION OF logs FOR VALUES IN (1);
CREATE TABLE logs_two PARTITION OF logs FOR VALUES IN (2);
CREATE TABLE "Logs of 'others'" PARTITION OF logs DEFAULT PARTITION BY HASH (id);
CREATE TABLE others_0 PARTITION OF "Logs of 'others'" FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE others_1 PARTITION OF "Logs of 'others'" FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE INDEX "Odd 'name" ON logs USING hnsw (vec vector_cosine_ops) WITH (m=8);
COMMENT ON INDEX "Odd 'name" IS 'it''s 100% :mine';
CREATE INDEX halves ON logs USING hnsw ((vec::halfvec(384)) halfvec_l2_ops);
CREATE INDEX own ON logs_one USING hnsw (vec vector_l2_ops)
"""
FILL = (
    "INSERT INTO logs SELECT i % 5, i, "
    "ARRAY(SELECT random() FROM generate_series(1, 384) WHERE i > 0)::vector "
    "FROM generate_series({first}, {last}) i"
)
LOOK = """
SELECT concat_ws(' | ', t.relname, pg_get_indexdef(i.indexrelid), i.indisvalid::text,
  coalesce(above.relname, 'none'), obj_description(i.indexrelid, 'pg_class'))
FROM pg_partition_tree('logs') p JOIN pg_index i ON i.indrelid = p.relid
JOIN pg_class t ON t.oid = p.relid JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am a ON a.oid = c.relam LEFT JOIN pg_inherits h ON h.inhrelid = i.indexrelid
LEFT JOIN pg_class above ON above.oid = h.inhparent WHERE a.amname = 'hnsw' ORDER BY 1
"""
FILES = """
SELECT c.relfilenode FROM pg_class c JOIN pg_am a ON a.oid = c.relam
WHERE a.amname = 'hnsw' AND c.relkind = 'i'
  AND c.relname <> 'ix_qortex_vectors_vec'
"""
PENDING = "SELECT to_regclass('qortex_db_pending_indexes')::text"
LEAVES = 4


@pytest.fixture
async def logs(dsn: str) -> str:
    await execute(dsn, *MAKE.strip().split(";\n"), FILL.format(first=1, last=400))
    return dsn


async def rebuilt(dsn: str, load: Callable[[], Awaitable[object]] | None = None) -> list[Any]:
    return await rebuild_index(Settings(dsn=dsn), table="logs", load=load)


@pytest.mark.parametrize("with_load", [False, True], ids=["", "with a load"])
async def test_every_partition_is_rebuilt_as_it_was(logs: str, *, with_load: bool) -> None:
    before, files = await rows(logs, LOOK), await rows(logs, FILES)
    assert len(before) == 2 * (LEAVES + 2) + 1
    seen: list[Any] = []

    async def load() -> None:
        seen.extend(await rows(logs, LOOK))
        await execute(logs, FILL.format(first=401, last=600))

    done = await rebuilt(logs, load if with_load else None)
    assert len(done) == 2 * LEAVES + 1
    assert seen == []
    assert await rows(logs, LOOK) == before
    assert set(files).isdisjoint(await rows(logs, FILES))
    assert await rows(logs, PENDING) == [None]


async def test_a_partition_without_an_index_gets_one(logs: str) -> None:
    before = await rows(logs, LOOK)
    await execute(
        logs,
        "DROP INDEX halves",
        "CREATE INDEX halves ON ONLY logs USING hnsw ((vec::halfvec(384)) halfvec_l2_ops)",
        "CREATE INDEX mine ON logs_two USING hnsw ((vec::halfvec(384)) halfvec_l2_ops)",
    )
    await rebuilt(logs)
    after = await rows(logs, LOOK)
    assert len(after) == len(before)
    parts = [line.split(" | ") for line in after]
    assert {valid for _, _, valid, *_ in parts} == {"true"}
    assert {above for _, made, _, above, *_ in parts if " mine " in made} == {"halves"}
    made = {above for _, made, _, above, *_ in parts if "halves_" in made}
    assert made == {"halves", "halves_Logs of 'others'"}


class GoneError(BaseException):
    """As a process that is killed: nothing of it runs any more."""


@pytest.mark.parametrize("with_load", [False, True], ids=["", "with a load"])
async def test_wherever_a_call_has_ended_the_next_one_restores(
    logs: str, monkeypatch: pytest.MonkeyPatch, *, with_load: bool
) -> None:
    """Before any of its statements, of which some are tried."""
    before = await rows(logs, LOOK)
    run, number = OwnedTable.run, 0
    ends = -1

    async def counted(self: OwnedTable, *given: Any, **options: Any) -> None:
        nonlocal number
        number += 1
        if number >= ends > 0:
            raise GoneError
        await run(self, *given, **options)

    async def load() -> None:
        return None

    monkeypatch.setattr(OwnedTable, "run", counted)
    await rebuilt(logs, load if with_load else None)
    statements = number
    assert statements > (30 if with_load else 2 * LEAVES)
    for end in range(1, statements + 1, 7 if with_load else 3):
        number, ends = 0, end
        with pytest.raises(GoneError):
            await rebuilt(logs, load if with_load else None)
        ends = -1
        await rebuilt(logs)
        assert await rows(logs, LOOK) == before, end
        assert await rows(logs, PENDING) == [None]


async def test_what_a_killed_build_left_invalid_is_built(logs: str) -> None:
    before = await rows(logs, LOOK)

    async def load() -> None:
        await execute(
            logs,
            "CREATE INDEX logs_two_vec_idx ON logs_two USING hnsw (vec vector_cosine_ops) "
            "WITH (m='8')",
            "UPDATE pg_index SET indisvalid = false "
            "WHERE indexrelid = 'logs_two_vec_idx'::regclass",
        )

    await rebuilt(logs, load)
    assert await rows(logs, LOOK) == before


async def test_readers_and_writers_go_on_between(logs: str) -> None:
    """A transaction that holds the table for a while is waited for, and nobody behind it."""
    async with Database.connect(logs) as db:

        async def load() -> None:
            await execute(logs, "DELETE FROM logs WHERE id = 1", "INSERT INTO logs VALUES (1, 1)")

        done = await rebuilt(logs, load)
        assert done
        assert await db.vectors.count() == 0


async def test_a_partitioned_table_without_a_vector_index_is_refused(logs: str) -> None:
    await execute(logs, 'DROP INDEX "Odd \'name"', "DROP INDEX halves")
    with pytest.raises(NotFoundError, match="no vector index on logs"):
        await rebuilt(logs)
