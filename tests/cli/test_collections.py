"""`qortex-db collections`: what models declare, and what the database has of it."""

from __future__ import annotations

import json

import pytest

from qortex_db import Database, Settings, migrations
from support.commands import run

pytestmark = pytest.mark.slow


def test_the_default_one_is_known_without_models_and_without_a_server() -> None:
    listed = run("collections", "list", "--json")
    assert listed.code == 0, listed.err
    assert [one["table"] for one in json.loads(listed.out)] == ["qortex_vectors"]
    described = run("collections", "describe", "qortex_vectors", "--json")
    assert (described.code, described.err) == (0, "")
    told = json.loads(described.out)
    assert told["indexes"]["ix_qortex_vectors_vec"] == "hnsw (vec vector_cosine_ops)"
    assert "model_change" not in told


def test_a_server_that_is_away_takes_nothing_from_what_models_say() -> None:
    away = {"PGVECTOR_DSN": "postgresql://127.0.0.1:1/d"}
    described = run("collections", "describe", "qortex_vectors", **away)
    assert described.code == 0
    assert "hnsw (vec vector_cosine_ops)" in described.out
    assert "The database was not asked: Could not connect" in described.err


async def test_a_change_of_the_model_is_told(dsn: str) -> None:
    async with Database.connect(dsn) as db:
        rows = [{"id": f"{n}", "embedding": [1.0] * 8} for n in range(3)]
        await db.vectors.upsert([{**rows[0], "document": "a"}, *rows[1:]])
    plain = run("collections", "describe", "qortex_vectors", "--json", PGVECTOR_DSN=dsn)
    told = json.loads(plain.out)
    assert (told["dimensions"], told["model_change"]) == (8, None)
    await migrations.add_embedding_column("v2", 16, Settings(dsn=dsn))
    shown = run("collections", "describe", "qortex_vectors", PGVECTOR_DSN=dsn)
    assert "In the database its vectors have 8 dimensions." in shown.out
    assert (
        "It changes its model: searches use old; 3 rows lack v2, 2 of them have no document."
        in shown.out
    )
