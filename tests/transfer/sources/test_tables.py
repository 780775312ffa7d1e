"""Tables of others in PostgreSQL: those of LangChain and LlamaIndex as their packages fill them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import numpy as np
import pytest
from llama_index.core.vector_stores.types import VectorStoreQuery

from qortex_db import (
    HNSW,
    Database,
    InvalidInputError,
    NotFoundError,
)
from qortex_db.integrations.llama_index import QortexVectorStore
from qortex_db.transfer import SparseComponents, import_collection, open_source
from support.catalogue import execute
from support.commands import program
from support.framework_rows import matrix, metadata, text
from support.sources.reading import read_everywhere

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qortex_db.testing import Server
    from qortex_db.transfer import Source

ROWS = 10_000
ROOT = Path(__file__).parents[3]
PEERS = ROOT / ".venv-peers" / "bin" / "python"
needs_peers = pytest.mark.skipif(
    not PEERS.exists(), reason="the frameworks' packages are not there: make peers"
)


async def filled(dsn: str, kind: str) -> None:
    script = ROOT / "tests" / "support" / "fill_frameworks.py"
    done = await program(str(PEERS), str(script), kind, dsn, str(ROWS), cwd=ROOT)
    assert done.code == 0, done.err


@pytest.fixture(scope="module")
def frameworks(server: Server) -> Iterator[str]:
    """A database with their tables, filled at once."""

    async def fill(dsn: str) -> None:
        await execute(dsn, "CREATE EXTENSION vector")
        await asyncio.gather(*(filled(dsn, kind) for kind in ("pgvector", "store", "llama_index")))

    with server.database() as dsn:
        asyncio.run(fill(dsn))
        yield dsn


async def check(db: Database, source: Source, key: Any, extra: Any = dict) -> None:
    """Move it, and compare every row."""
    report = await import_collection(db, source, batch_size=3_000)
    assert report.is_good, report.faults
    assert (report.source_rows, report.stored, report.rejected) == (ROWS, ROWS, 0)
    assert report.overlaps[0].queries == 20
    vectors = matrix(ROWS)
    for start in range(0, ROWS, 2_500):
        keys = [key(number) for number in range(start, start + 2_500)]
        stored = await db.vectors.get(keys)
        for number, name in enumerate(keys, start):
            found = stored[str(name)]
            assert np.array_equal(np.asarray(found.embedding), vectors[number])
            assert found.document == text(number)
            assert extra(found.payload, number) == metadata(number)


@needs_peers
@pytest.mark.slow
async def test_a_collection_of_pgvector_comes_over(frameworks: str, db384: Database) -> None:
    source = await open_source("langchain", frameworks, "odd notes")
    assert "postgres:" not in source.label
    await check(db384, source, lambda number: f"odd notes {number}", lambda found, _: found)
    rows = await read_everywhere(source, [777, 2 * 777])
    assert len({row.id for row in rows}) == len(rows) == ROWS
    await source.close()


@needs_peers
@pytest.mark.slow
async def test_a_table_of_pgvectorstore_comes_over(frameworks: str, db384: Database) -> None:
    def of(found: dict[str, Any], number: int) -> dict[str, Any]:
        """Keys whose value is null are columns without one: they were not there before either."""
        return found | ({"none": None} if number % 3 == 0 else {})

    source = await open_source("langchain", frameworks, "odd_notes")
    (vector,) = (await source.describe()).vectors
    assert (vector.metric, vector.index) == ("l2", HNSW(m=8, ef_construction=32))
    await check(db384, source, lambda number: UUID(int=number), of)
    await source.close()
    with pytest.raises(
        NotFoundError, match="nor a table 'elsewhere'; PGVector has 'another', 'odd"
    ):
        await open_source("langchain", frameworks, "elsewhere")


@needs_peers
@pytest.mark.slow
async def test_nodes_of_llamaindex_come_over_and_are_its_own_again(
    frameworks: str, db384: Database, dsn384: str
) -> None:
    source = await open_source("llamaindex", frameworks, "Odd_Notes")

    def of(found: dict[str, Any], number: int) -> dict[str, Any]:
        assert found["ref_doc_id"] == f"file {number // 10}"
        ours = metadata(number).keys()
        return {name: value for name, value in found.items() if name in ours}

    await check(db384, source, lambda number: f"node {number}", of)
    await source.close()
    store = QortexVectorStore(database=dsn384)
    query = VectorStoreQuery(query_embedding=matrix(ROWS)[7].tolist(), similarity_top_k=1)
    found = await store.aquery(query)
    assert found.nodes is not None
    (node,) = found.nodes
    assert (node.node_id, node.get_content(), node.ref_doc_id) == ("node 7", text(7), "file 0")
    assert node.metadata == metadata(7)
    await store.aclose()


ODD = """
CREATE EXTENSION IF NOT EXISTS vector;
CREATE SCHEMA "Else where";
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN rating AS int CHECK (value BETWEEN 1 AND 5);
CREATE TABLE "Else where"."Odd Table" (
  "Key" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text, title_vec halfvec(4),
  "Emb" vector(8), words sparsevec(30), price numeric(12, 3), seen timestamptz, day date,
  mood mood, tags text[], raw bytea, searched tsvector, at inet, extra jsonb, uid uuid, ok bool,
  stars rating DEFAULT 4);
CREATE INDEX ON "Else where"."Odd Table" USING hnsw ("Emb" vector_ip_ops) WITH (m = 7);
INSERT INTO "Else where"."Odd Table" (body, title_vec, "Emb", words, price, seen, day, mood, tags,
  raw, searched, extra, uid, ok)
SELECT 'Body ' || n, ARRAY[n, 1, 2, 3]::vector(4)::halfvec(4),
  CASE WHEN n % 10 = 0 THEN NULL ELSE ARRAY[n, 1, 2, 3, 4, 5, 6, 7]::vector(8) END,
  ('{1:' || n || ',30:2}/30')::sparsevec, n / 8.0, to_timestamp(n), '2026-01-01'::date + n,
  'bad', ARRAY['a', NULL], '\\x00', 'word', jsonb_build_object('price', n), gen_random_uuid(),
  n % 2 = 0
FROM generate_series(1, 300) n;
CREATE TABLE parts (a text, b int, emb vector(8), PRIMARY KEY (a, b));
INSERT INTO parts SELECT 'a"' || n, n, ARRAY[n, 1, 2, 3, 4, 5, 6, 7] FROM generate_series(1, 30) n;
CREATE TABLE keyless (emb vector(8), name text UNIQUE);
INSERT INTO keyless SELECT ARRAY[n, 1, 2, 3, 4, 5, 6, 7], 'n' || n FROM generate_series(1, 30) n;
CREATE TABLE plain (id int PRIMARY KEY);
"""


async def test_any_table_is_a_source(dsn: str, db: Database) -> None:
    await execute(dsn, ODD)
    source = await open_source("pgvector", dsn, "Else where.Odd Table", document="body")
    found = await source.describe()
    assert [(each.name, each.dimensions, each.metric, each.storage) for each in found.vectors] == [
        ("", 4, "cosine", "half"),
        ("Emb", 8, "inner_product", "full"),
        ("words", None, "cosine", "sparse"),
    ]
    assert found.vectors[1].index == HNSW(m=7)
    assert sorted(found.left_out) == [
        "The column at (INET) has no word in JSON.",
        "The column raw (BYTEA) has no word in JSON.",
        "The column searched (TSVECTOR) has no word in JSON.",
    ]
    await source.close()
    source = await open_source(
        "pgvector", dsn, "Else where.Odd Table", document="body", payload="extra", embedding="Emb"
    )
    report = await import_collection(db, source)
    # By inner product the longest are the nearest, so that this is no place for them.
    assert report.faults == [
        "Searches by the vector find 0% of what the source finds, less than 90%."
    ]
    assert report.differences == []
    assert report.stored == 300
    stored = await db.vectors.get([7, 10])
    payload = dict(stored["7"].payload or {})
    assert UUID(payload.pop("uid"))
    assert payload == {
        "price": 7,
        "price_": 0.875,
        "seen": "1970-01-01T00:00:07+00:00",
        "day": "2026-01-08",
        "mood": "bad",
        "tags": ["a", None],
        "ok": False,
        "stars": 4,
    }
    assert (stored["7"].document, stored["10"].embedding) == ("Body 7", None)
    await source.close()


async def test_vectors_of_every_kind_come_with_their_names(dsn: str) -> None:
    await execute(dsn, ODD)
    source = await open_source(
        "pgvector", dsn, "Else where.Odd Table", embedding="Emb,words,title_vec"
    )
    (first, *_) = await read_everywhere(source, [100, 2 * 100])
    assert np.asarray(first.vectors[""]).tolist() == [1, 1, 2, 3, 4, 5, 6, 7]
    assert first.vectors["words"] == SparseComponents([0, 29], [1.0, 2.0])
    assert np.asarray(first.vectors["title_vec"]).tolist() == [1, 1, 2, 3]
    near = await source.nearest("title_vec", [9, 1, 2, 3], 3)
    assert near is not None
    assert set(near) <= {row.id for row in await read_everywhere(source, [100, 2 * 100])}
    assert await source.nearest("words", first.vectors["words"], 3)
    await source.close()


@pytest.mark.parametrize(
    ("table", "options", "ids"),
    [
        ("parts", {}, ['["a\\"1", 1]', '["a\\"30", 30]']),
        ("keyless", {"id": "name"}, ["n1", "n30"]),
    ],
)
async def test_keys_of_any_kind_are_read_back(
    dsn: str, db: Database, table: str, options: dict[str, str], ids: Sequence[str]
) -> None:
    await execute(dsn, ODD)
    source = await open_source("pgvector", dsn, table, **options)
    report = await import_collection(db, source, batch_size=7)
    assert report.is_good, report.faults
    assert report.sampled == report.stored == 30
    assert (await db.vectors.get(ids)).keys() == set(ids)
    await source.close()


async def test_payloads_that_are_no_objects_are_no_good_and_no_key_is_lost(
    dsn: str, db: Database
) -> None:
    await execute(
        dsn,
        "CREATE TABLE mixed (id int PRIMARY KEY, vec vector(8), p jsonb, year int)",
        "INSERT INTO mixed SELECT at, array_fill(at::real, ARRAY[8])::vector, p::jsonb, 3 "
        """FROM unnest(ARRAY['[["a", 1]]', '"s"', 'null', NULL, '{"year": 1, "year_": 2}'])"""
        " WITH ORDINALITY AS given (p, at)",
    )
    source = await open_source("pgvector", dsn, "mixed", payload="p")
    report = await import_collection(db, source)
    assert [(each.where, each.reason) for each in report.rejects] == [
        ("1", "p has to be an object."),
        ("2", "p has to be an object."),
    ]
    stored = await db.vectors.get([3, 4, 5])
    assert [stored[each].payload for each in "345"] == [
        {"year": 3},
        {"year": 3},
        {"year": 1, "year_": 2, "year__": 3},
    ]
    await source.close()


async def test_metadata_may_be_called_as_a_column_of_langchains(dsn: str, db: Database) -> None:
    await execute(
        dsn,
        "CREATE TABLE langchain_pg_collection (uuid uuid PRIMARY KEY, name varchar)",
        "CREATE TABLE langchain_pg_embedding (id varchar PRIMARY KEY, collection_id uuid, "
        "embedding vector, document varchar, cmetadata jsonb)",
        "INSERT INTO langchain_pg_collection VALUES (gen_random_uuid(), 'a'), "
        "(gen_random_uuid(), 'b')",
        "INSERT INTO langchain_pg_embedding SELECT name, uuid, array_fill(1::real, ARRAY[8])"
        """::vector, 'text', '{"collection_id": "mine"}' FROM langchain_pg_collection""",
    )
    source = await open_source("langchain", dsn, "a")
    assert (await import_collection(db, source)).is_good
    assert await db.vectors.count() == 1
    assert (await db.vectors.get(["a"]))["a"].payload == {"collection_id": "mine"}
    await source.close()


async def test_vectors_of_several_lengths_are_no_good_and_end_no_import(
    dsn: str, db: Database
) -> None:
    await execute(
        dsn,
        "CREATE TABLE loose (id int PRIMARY KEY, vec vector)",
        "INSERT INTO loose SELECT at, array_fill(at::real, ARRAY[9 - at % 2])::vector "
        "FROM generate_series(1, 9) AS at",
    )
    source = await open_source("pgvector", dsn, "loose")
    report = await import_collection(db, source)
    assert (report.read, report.rejected, report.stored) == (9, 4, 5)
    assert [each.share for each in report.overlaps] == [None]
    await source.close()


@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        ("nowhere", {}, "no table 'nowhere'"),
        ("plain", {}, "no column of pgvector's types"),
        ("keyless", {}, "keyless has no primary key: say which column is, by id="),
        ("keyless", {"id": "key"}, "no column 'key'"),
        ("keyless", {"id": "name", "embedding": "name"}, "no vector 'name'"),
        (None, {}, "Say which table"),
    ],
)
async def test_what_is_no_source_is_said_so(
    dsn: str, table: str | None, options: dict[str, str], said: str
) -> None:
    await execute(dsn, ODD)
    with pytest.raises((InvalidInputError, NotFoundError), match=said):
        await open_source("pgvector", dsn, table, **options)
    connection = await asyncpg.connect(dsn)
    others = await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    await connection.close()
    assert others == 0


async def test_the_tables_of_before_langchain_postgres_are_read_too(dsn: str, db: Database) -> None:
    """As langchain-community makes them; its package is not installed for that."""
    await execute(
        dsn,
        "CREATE EXTENSION IF NOT EXISTS vector",
        "CREATE TABLE langchain_pg_collection (name varchar, cmetadata json, "
        "uuid uuid PRIMARY KEY DEFAULT gen_random_uuid())",
        "CREATE TABLE langchain_pg_embedding (collection_id uuid REFERENCES "
        "langchain_pg_collection, embedding vector, document varchar, cmetadata json, "
        "custom_id varchar, uuid uuid PRIMARY KEY)",
        "INSERT INTO langchain_pg_collection (name) VALUES ('old'), ('other')",
        "INSERT INTO langchain_pg_embedding SELECT c.uuid, array_fill(n, ARRAY[8])::vector, "
        "'Text ' || n, json_build_object('n', n), 'custom ' || n, "
        "lpad(n::text, 32, '0')::uuid FROM langchain_pg_collection c, generate_series(1, 20) n "
        "WHERE c.name = 'old'",
    )
    source = await open_source("langchain", dsn, "old")
    report = await import_collection(db, source)
    assert report.is_good, report.faults
    assert report.stored == 20
    (found,) = (await db.vectors.get([UUID("0" * 31 + "7")])).values()
    assert (found.document, found.payload) == ("Text 7", {"n": 7, "custom_id": "custom 7"})
    await source.close()
    other = await open_source("langchain", dsn, "other")
    assert (await other.describe()).rows == 0
    await other.close()


async def test_moments_without_end_are_said_so(dsn: str, db: Database) -> None:
    await execute(
        dsn,
        "CREATE TABLE ends (id int PRIMARY KEY, emb vector(8), at timestamptz, day date, "
        "on_ timestamp)",
        "INSERT INTO ends VALUES (1, array_fill(1, ARRAY[8])::vector, 'infinity', '-infinity', "
        "'-infinity'), (2, array_fill(2, ARRAY[8])::vector, '2026-01-01Z', NULL, 'infinity')",
    )
    source = await open_source("pgvector", dsn, "ends")
    report = await import_collection(db, source)
    assert report.is_good, report.faults
    stored = await db.vectors.get([1, 2])
    assert stored["1"].payload == {"at": "infinity", "day": "-infinity", "on_": "-infinity"}
    assert stored["2"].payload == {
        "at": "2026-01-01T00:00:00+00:00",
        "day": None,
        "on_": "infinity",
    }
    await source.close()
