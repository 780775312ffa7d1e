"""The examples of hosts with other libraries, run as their docstrings say."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import httpx
import pytest

from qortex_db import Database, Settings, migrations
from support.commands import ROOT, program

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples"
UP = [1.0, *[0.0] * 7]
RIGHT = [0.9, 0.1, *[0.0] * 6]


@pytest.fixture(scope="session")
def qortex_db_migrate() -> Callable[[str], Awaitable[None]]:
    async def migrate(dsn: str) -> None:
        await migrations.upgrade(Settings(dsn=dsn, dimensions=8))

    return migrate


@pytest.mark.parametrize(
    ("name", "warnings", "printed"),
    [
        # Advanced Alchemy's own import warns with SQLAlchemy 2.1.
        ("advanced_alchemy_host", "error::RuntimeWarning", "[('a2', 'Ada'), ('a1', 'Ada')]"),
        ("sqlmodel_host", "error", "[('h2', 'Analytical'), ('h1', 'Analytical')]"),
    ],
)
async def test_a_host_stores_and_finds_in_one_transaction_of_its_own(
    qortex_db_dsn: str, name: str, warnings: str, printed: str
) -> None:
    script = str(EXAMPLES / f"{name}.py")
    done = await program(
        sys.executable, script, PGVECTOR_DSN=qortex_db_dsn, PYTHONWARNINGS=warnings
    )
    assert done.code == 0, done.err
    assert done.out.strip() == printed


async def test_a_service_with_starlette(
    qortex_db_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGVECTOR_DSN", qortex_db_dsn)
    monkeypatch.syspath_prepend(EXAMPLES)
    from starlette_service import app, lifespan  # noqa: PLC0415 - an example is no package

    async with lifespan(app) as state:

        async def with_state(scope, receive, send) -> None:  # noqa: ANN001 - as a server does
            await app({**scope, "state": state}, receive, send)

        transport = httpx.ASGITransport(app=with_state)
        async with httpx.AsyncClient(transport=transport, base_url="http://host") as client:
            assert (await client.get("/readyz")).status_code == 200
            documents = [
                {"id": "up", "embedding": UP, "payload": {"kind": "way"}},
                {"id": "right", "embedding": RIGHT},
            ]
            answer = await client.post("/documents", json={"documents": documents})
            assert answer.json() == {"stored": 2}
            query = {"embedding": UP, "limit": 2}
            found = (await client.post("/search", json=query)).json()
            assert found[0] == {"id": "up", "score": 1.0, "kind": "way"}
            given = {"outcomes": {"right": "accepted", "up": "rejected"}, "arm": "a", "reward": 1}
            learned = (await client.post("/feedback", json=given)).json()
            assert learned["mean"] == pytest.approx(2 / 3)
            found = (await client.post("/search", json=query)).json()
            assert [hit["id"] for hit in found] == ["right", "up"]
            for bad in ({"embedding": [1, 2]}, {}, ["no object"]):
                assert (await client.post("/search", json=bad)).status_code == 422, bad
            refused = await client.post("/feedback", json=given | {"reward": 7})
            assert refused.status_code == 422
    async with Database.connect(qortex_db_dsn) as db:
        assert (await db.arms.get("prompts", "a")).pulls == 1
        assert (await db.factors.get(["right"]))["right"] == learned["weights"]["right"]
