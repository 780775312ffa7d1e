"""Work in batches that is killed again and again: no row is changed twice, and none is missed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from repositories.chunks_worker import work

from qortex_db import OutcomeUnknownError, UnavailableError
from support.catalogue import execute, rows
from support.commands import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROWS = 6_000
KILLS = int(os.environ.get("CHUNKS_KILLS", "8"))
WORKER = Path(__file__).with_name("chunks_worker.py")
VECTORS = f"""
INSERT INTO qortex_vectors (id, vec, payload)
SELECT 'r' || lpad(i::text, 6, '0'),
  (SELECT array_agg(random())::vector(384) FROM generate_series(1, 384) WHERE i > 0),
  jsonb_build_object('half', i % 2, 'n', i, 'tags', jsonb_build_array('a', 'b', 'c', 'd'))
FROM generate_series(1, {ROWS}) i
"""
ARMS = f"""
INSERT INTO learning_arm_states (learner_name, context_hash, arm_id, alpha, beta, pulls)
SELECT CASE WHEN i % 2 = 0 THEN 'bandit' ELSE 'another' END,
  CASE i % 3 WHEN 0 THEN 'default' ELSE md5((i % 3)::text) END, 'arm' || i, 1 + i, 2 + i, i
FROM generate_series(1, {ROWS}) i
"""
CHANGED = ROWS // 2
STORED = {
    "merge_payload": "SELECT concat_ws(' ', payload ->> 'n', payload ->> 'tags') "
    "FROM qortex_vectors ORDER BY (payload ->> 'n')::int",
    "delete_where": "SELECT payload ->> 'n' FROM qortex_vectors ORDER BY (payload ->> 'n')::int",
    "decay": "SELECT concat_ws(' ', arm_id, alpha, beta, (SELECT count(*) FROM learning_events e "
    "WHERE e.arm_id = s.arm_id AND kind = 'decay' AND multiplied_by = 0.5)) "
    "FROM learning_arm_states s ORDER BY pulls",
}
EXPECTED: dict[str, Callable[[], list[str]]] = {
    "merge_payload": lambda: [
        f'{i} ["b", "c", "d"]' if i % 2 else f'{i} ["a", "b", "c", "d"]' for i in range(1, ROWS + 1)
    ],
    "delete_where": lambda: [str(i) for i in range(2, ROWS + 1, 2)],
    "decay": lambda: [
        f"arm{i} {1 + i} {2 + i} 0" if i % 2 else f"arm{i} {(1 + i) / 2:g} {(2 + i) / 2:g} 1"
        for i in range(1, ROWS + 1)
    ],
}


@pytest.fixture
async def dsn_filled(dsn384: str) -> str:
    await execute(dsn384, "DROP INDEX ix_qortex_vectors_vec", VECTORS, ARMS)
    return dsn384


async def _killed(dsn: str, name: str, chance: random.Random) -> bool:
    """Run a process, and kill it after some batches; whether it was not done before."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(WORKER), dsn, name, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    # Half of what would do: on a busy machine it goes on for a while before it is killed.
    for _ in range(chance.randint(1, max(1, CHANGED // 50 // KILLS // 2))):
        if not (await process.stdout.readline())[:-1].isdigit():
            break
    await asyncio.sleep(chance.random() * 0.01)
    if process.returncode is None:
        process.send_signal(signal.SIGKILL)
    return await process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("name", STORED)
@pytest.mark.parametrize("seed", [1])
async def test_a_process_that_is_killed_has_changed_no_row_twice(
    dsn_filled: str, name: str, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - a fixed choice
    killed = [await _killed(dsn_filled, name, chance) for _ in range(KILLS)]
    assert sum(killed) >= KILLS // 2
    seen = await rows(dsn_filled, "SELECT rows_read FROM qortex_db_checkpoints")
    assert 0 < int(seen[0]) <= CHANGED
    assert await work(dsn_filled, name) == CHANGED
    assert await rows(dsn_filled, STORED[name]) == EXPECTED[name]()


@pytest.mark.parametrize("name", STORED)
async def test_a_connection_that_is_lost_has_changed_no_row_twice(
    dsn_filled: str, name: str
) -> None:
    lost, done = 0, None
    chance = random.Random(2)  # noqa: S311 - a fixed choice
    admin = await asyncpg.connect(dsn_filled)

    async def cut(seconds: float) -> None:
        await asyncio.sleep(seconds)
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
            "AND datname = current_database() AND backend_type = 'client backend'"
        )

    try:
        while done is None:
            batches = iter(range(chance.randint(1, 5) if lost < KILLS else 0, 0, -1))
            cuts: list[asyncio.Task[None]] = []

            def told(_: int, batches: Any = batches, cuts: Any = cuts) -> None:
                if next(batches, 0) == 1:
                    cuts.append(asyncio.create_task(cut(chance.random() * 0.01)))

            try:
                done = await work(dsn_filled, name, on_progress=told)
            except (OutcomeUnknownError, UnavailableError):
                lost += 1
            await asyncio.gather(*cuts)
    finally:
        await admin.close()
    assert done == CHANGED
    assert lost >= 2
    assert await rows(dsn_filled, STORED[name]) == EXPECTED[name]()
