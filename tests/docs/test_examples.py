"""The example of a service, served by uvicorn as its docstring says, over real sockets."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from qortex_db import Database, Settings, migrations
from support.serving import served

if TYPE_CHECKING:
    import httpx

pytestmark = pytest.mark.slow

UP = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
RIGHT = [0.9, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]


async def post(client: httpx.AsyncClient, path: str, body: Any) -> Any:
    answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_feedback_changes_what_a_search_answers(dsn: str) -> None:
    documents = [
        {"id": "up", "embedding": UP, "document": "Up", "payload": {"kind": "way"}},
        {"id": "right", "embedding": RIGHT},
    ]
    query = {"embedding": UP, "limit": 2}
    async with served(dsn) as client:
        assert await post(client, "/v1/documents", documents) == 2
        hits = await post(client, "/v1/search", query)
        assert [hit["id"] for hit in hits] == ["up", "right"]
        assert hits[0] == {
            "id": "up",
            "score": 1.0,
            "document": "Up",
            "payload": {"kind": "way"},
        }
        given = {"outcomes": {"right": "accepted", "up": "rejected"}, "arm": "v2", "reward": 1}
        learned = await post(client, "/v1/feedback", given)
        assert learned["weights"]["right"] > 1 > learned["weights"]["up"]
        assert learned["arm_mean"] == pytest.approx(2 / 3)
        hits = await post(client, "/v1/search", query)
        assert [hit["id"] for hit in hits] == ["right", "up"]
        status = (await client.get("/v1/status")).json()
        assert status["tables"]["qortex_vectors"]["rows"] == 2
        assert status["learning"]["arms"] == 1
    async with Database.connect(dsn) as db:
        assert (await db.arms.get("prompts", "v2")).pulls == 1


async def test_feedback_is_kept_whole_or_not_at_all(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("ALTER TABLE learning_arm_states ADD CHECK (arm_id <> 'refused')")
    given = {"outcomes": {"n": "accepted"}, "arm": "refused", "reward": 1}
    async with served(dsn) as client:
        answer = await client.post("/v1/feedback", json=given)
        assert answer.status_code == 409
    assert await connection.fetchval("SELECT count(*) FROM interoception_factors") == 0
    await connection.close()


async def test_bad_requests_are_refused_without_their_values(dsn: str) -> None:
    bad: list[tuple[str, str]] = [
        ("/v1/search", '{"embedding": [1, 2]}'),  # another dimension
        ("/v1/search", '{"embedding": [NaN, 0, 0, 0, 0, 0, 0, 0]}'),
        ("/v1/search", '{"embedding": [0, 0, 0, 0, 0, 0, 0, 0]}'),
        ("/v1/search", '{"embedding": ["seven"]}'),
        ("/v1/search", f'{{"embedding": {UP}, "limit": 101}}'),
        ("/v1/feedback", '{"outcomes": {"n": "adored"}, "arm": "a", "reward": 1}'),
        ("/v1/feedback", '{"outcomes": {}, "arm": "a", "reward": NaN}'),
        ("/v1/documents", '[{"id": "", "embedding": [1]}]'),
    ]
    async with served(dsn) as client:
        for path, body in bad:
            answer = await client.post(path, content=body)
            assert answer.status_code == 422, (body, answer.text)
            assert not {"seven", "adored"} & set(re.findall(r"\w+", str(answer.json())))


async def test_a_bad_row_of_many_is_named_and_nothing_is_stored(dsn384: str) -> None:
    documents: list[dict[str, Any]] = [
        {"id": f"v{number:03}", "embedding": [float(number + 1)] * 384} for number in range(400)
    ]
    bad: list[dict[str, Any]] = [
        {"embedding": [1.0] * 383 + [float("nan")]},
        {"embedding": [1.0] * 383},
        {"document": "a\x00b"},
        {"payload": {"a": "b\x00"}},
    ]
    async with served(dsn384) as client:
        for place in (0, 50, 399):
            for change in bad:
                given = json.dumps(
                    [*documents[:place], documents[place] | change, *documents[place + 1 :]]
                )
                answer = await client.post("/v1/documents", content=given)
                assert answer.status_code == 422, answer.text
                assert f"of row {place} (id 'v{place:03}')" in answer.json()["detail"]
        assert (await client.get("/v1/status")).json()["tables"]["qortex_vectors"]["rows"] == 0
        assert await post(client, "/v1/documents", documents) == 400


async def test_an_unmigrated_database_is_alive_but_not_ready(empty_dsn: str) -> None:
    async with served(empty_dsn) as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503
        answer = await client.post("/v1/search", json={"embedding": UP})
        assert answer.status_code == 503
        assert "qortex-db upgrade" in answer.json()["detail"]
        state = await migrations.upgrade(Settings(dsn=empty_dsn, dimensions=8))
        ready = await client.get("/readyz")
        assert ready.status_code == 200
        assert ready.json() == {"current": state.head, "head": state.head}
        assert await post(client, "/v1/search", {"embedding": UP}) == []


async def test_a_client_that_goes_away_leaves_no_query_running(dsn: str) -> None:
    running = (
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' "
        "AND pid <> pg_backend_pid() AND datname = current_database()"
    )
    holder, watcher = await asyncpg.connect(dsn), await asyncpg.connect(dsn)

    async def until(count: int) -> None:
        for _ in range(200):
            if await watcher.fetchval(running) == count:
                return
            await asyncio.sleep(0.05)
        pytest.fail(f"there are not {count} queries running")

    try:
        async with served(dsn) as client, holder.transaction():
            await holder.execute("LOCK TABLE qortex_vectors")
            waiting = asyncio.create_task(client.post("/v1/search", json={"embedding": UP}))
            await until(1)
            await asyncio.sleep(0.2)
            assert await watcher.fetchval(running) == 1
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await until(0)
    finally:
        await holder.close()
        await watcher.close()


async def test_a_server_that_goes_away_is_503_and_not_ready(dsn: str) -> None:
    name = dsn.partition("?")[0].rpartition("/")[2]
    renamed = f"gone_{name}"
    async with served(dsn, QORTEX_DB_RETRY_SECONDS="0") as client:
        assert (await client.get("/readyz")).status_code == 200
        admin = await asyncpg.connect(dsn.replace(f"/{name}?", "/postgres?"))
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
        )
        await admin.execute(f'ALTER DATABASE "{name}" RENAME TO "{renamed}"')
        try:
            assert (await client.get("/readyz")).status_code == 503
            answer = await client.post("/v1/search", json={"embedding": UP})
            assert answer.status_code == 503
            assert (await client.get("/healthz")).status_code == 200
        finally:
            await admin.execute(f'ALTER DATABASE "{renamed}" RENAME TO "{name}"')
            await admin.close()
        assert await post(client, "/v1/search", {"embedding": UP}) == []


async def test_a_schema_of_a_newer_release_leaves_it_ready_and_serving(dsn: str) -> None:
    """Deployments migrate first: the release before it goes on meanwhile."""
    async with served(dsn) as client:
        assert await post(client, "/v1/documents", [{"id": "up", "embedding": UP}]) == 1
        connection = await asyncpg.connect(dsn)
        await connection.execute("UPDATE qortex_db_alembic_version SET version_num = 'newer'")
        # As a revision may: it adds.
        await connection.execute(
            "ALTER TABLE qortex_vectors ADD COLUMN later text NOT NULL DEFAULT 'x';"
            "ALTER TABLE learning_arm_states ADD COLUMN later float8 NOT NULL DEFAULT 0;"
            "CREATE TABLE qortex_db_later (id text PRIMARY KEY)"
        )
        await connection.close()
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["current"]) == (200, "newer")
        assert await post(client, "/v1/documents", [{"id": "new", "embedding": RIGHT}]) == 1
        given = {"outcomes": {"up": "accepted"}, "arm": "a", "reward": 1}
        assert (await post(client, "/v1/feedback", given))["weights"]["up"] > 1
        hits = await post(client, "/v1/search", {"embedding": UP})
        assert [hit["id"] for hit in hits] == ["up", "new"]
