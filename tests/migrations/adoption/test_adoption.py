"""Databases as qortex 0.8 leaves them, adopted: every row is kept, or nothing is touched."""

from __future__ import annotations

import asyncio
import json
import re
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import (
    Database,
    DimensionMismatchError,
    InvalidInputError,
    LockTimeoutError,
    NotFoundError,
    PgVectorIndex,
    PostgresInteroceptionStore,
    PostgresLearningStore,
    QortexDbError,
    SchemaVersionError,
    Settings,
    UnavailableError,
    migrations,
)
from qortex_db.migrations import AdoptionRefusedError, adopt
from qortex_db.migrations.adoption import adopt as adopting
from qortex_db.migrations.rebuild import owned_table
from qortex_db.migrations.rebuild.indexes import restore_pending
from qortex_db.testing.factories import ArmStateFactory, EdgeStatsFactory
from support.catalogue import (
    BASELINE,
    LATER,
    VERSION_TABLE,
    catalogue,
    comments,
    execute,
    relations,
    rows,
)
from support.commands import ROOT, alembic, run
from support.hosting import HOST_ENV, HOST_REVISION
from support.pages import BLOCK, program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.slow

HEAD = migrations.head_revision()
NAME = "ix_qortex_vectors_vec"

HOST_FIRST = """
revision, down_revision, branch_labels = "host1", None, ("host",)

def upgrade() -> None:
    pass
"""
# As qortex 0.8.1 runs them.
REAL = """
    CREATE TABLE IF NOT EXISTS qortex_vectors (
        id TEXT PRIMARY KEY,
        embedding vector({n}),
        created_at TIMESTAMPTZ DEFAULT now()
    )
"""
REAL_INDEX = """
    CREATE INDEX IF NOT EXISTS idx_qortex_vectors_embedding
    ON qortex_vectors
    USING hnsw (embedding vector_cosine_ops)
"""
FACTORS = """
    CREATE TABLE IF NOT EXISTS interoception_factors (
        node_id    TEXT PRIMARY KEY,
        weight     DOUBLE PRECISION NOT NULL DEFAULT 1.0,
        updated_at TIMESTAMPTZ DEFAULT now()
    )
"""
EDGES = """
    CREATE TABLE IF NOT EXISTS interoception_edge_buffer (
        src_id    TEXT NOT NULL,
        tgt_id    TEXT NOT NULL,
        hit_count INTEGER NOT NULL DEFAULT 0,
        scores    JSONB NOT NULL DEFAULT '[]'::jsonb,
        last_seen TIMESTAMPTZ DEFAULT now(),
        PRIMARY KEY (src_id, tgt_id)
    )
"""
ARMS = """
    CREATE TABLE IF NOT EXISTS learning_arm_states (
        learner_name TEXT NOT NULL,
        context_hash TEXT NOT NULL,
        arm_id       TEXT NOT NULL,
        alpha        DOUBLE PRECISION NOT NULL DEFAULT 1.0,
        beta         DOUBLE PRECISION NOT NULL DEFAULT 1.0,
        pulls        INTEGER NOT NULL DEFAULT 0,
        total_reward DOUBLE PRECISION NOT NULL DEFAULT 0.0,
        last_updated TIMESTAMPTZ DEFAULT now(),
        PRIMARY KEY (learner_name, context_hash, arm_id)
    )
"""
ARMS_INDEX = """
    CREATE INDEX IF NOT EXISTS idx_learning_arm_states_context
        ON learning_arm_states(learner_name, context_hash)
"""
# As qortex documents it.
DOCUMENTED = "CREATE TABLE qortex_vectors (id text PRIMARY KEY, vec vector({n}))"
DOCUMENTED_INDEX = "CREATE INDEX ON qortex_vectors USING hnsw (vec vector_cosine_ops)"
FORMS = {"embedding": (REAL, REAL_INDEX), "vec": (DOCUMENTED, DOCUMENTED_INDEX)}
OTHERS = {
    "interoception_factors": (FACTORS,),
    "interoception_edge_buffer": (EDGES,),
    "learning_arm_states": (ARMS, ARMS_INDEX),
}
FILL_OTHERS = {
    "interoception_factors": """
        INSERT INTO interoception_factors
        SELECT 'knoten ü' || i, i / 7.0, CASE WHEN i % 3 = 0 THEN NULL ELSE now() END
        FROM generate_series(1, 30) i
    """,
    "interoception_edge_buffer": """
        INSERT INTO interoception_edge_buffer
        SELECT 'a' || i, 'b' || i, i, jsonb_build_array(i / 3.0, 1), now() FROM
        generate_series(1, 30) i
    """,
    "learning_arm_states": """
        INSERT INTO learning_arm_states
        SELECT 'prompts', 'default', 'arm' || i, 1 + i / 3.0, 1.5, i, i / 3.0, now()
        FROM generate_series(1, 30) i
    """,
}
ROWS = {  # a column that a later revision adds has no values yet
    name: f"SELECT jsonb_strip_nulls(to_jsonb(t))::text FROM {name} t ORDER BY 1"
    for name in ("interoception_factors", "interoception_edge_buffer", "learning_arm_states")
}


async def fill_vectors(dsn: str, column: str, dimensions: int, count: int = 60) -> None:
    await execute(
        dsn,
        f"INSERT INTO qortex_vectors (id, {column}) SELECT 'r' || i, ARRAY(SELECT sin(i * j) "
        f"FROM generate_series(1, {dimensions}) j)::vector FROM generate_series(1, {count}) i",
    )


async def make(
    dsn: str,
    form: str = "embedding",
    dimensions: int = 3,
    *,
    index: bool = True,
    without: tuple[str, ...] = (),
) -> str:
    """A database that qortex filled."""
    if "qortex_vectors" not in without:
        table, hnsw = FORMS[form]
        await execute(dsn, "CREATE EXTENSION IF NOT EXISTS vector", table.format(n=dimensions))
        await fill_vectors(dsn, form, dimensions)
        if index:
            await execute(dsn, hnsw)
    for name, statements in OTHERS.items():
        if name not in without:
            await execute(dsn, *statements, FILL_OTHERS[name])
    return dsn


async def stored(dsn: str) -> dict[str, list[str]]:
    """Every row of qortex's tables that are there, under the columns that qortex knows."""
    there = await relations(dsn)
    found = {name: await rows(dsn, query) for name, query in ROWS.items() if name in there}
    if "qortex_vectors" in there:
        columns = set(
            await rows(
                dsn,
                "SELECT attname FROM pg_attribute WHERE attrelid = 'qortex_vectors'::regclass "
                "AND attnum > 0 AND NOT attisdropped",
            )
        )
        vec = "vec" if "vec" in columns else "embedding"
        if vec in columns:
            query = f"SELECT id || {vec}::text FROM qortex_vectors ORDER BY 1"
            found["qortex_vectors"] = await rows(dsn, query)
        if "created_at" in columns and "payload" not in columns:
            query = "SELECT id || created_at::text FROM qortex_vectors ORDER BY 1"
            found["created_at"] = await rows(dsn, query)
    return found


async def everything(dsn: str) -> object:
    """What must not change where adoption is refused: relations, catalogue, comments, rows."""
    return (
        await relations(dsn),
        await catalogue(dsn),
        await comments(dsn),
        await stored(dsn),
        await rows(dsn, "SELECT xmin::text || relname || relfilenode FROM pg_class ORDER BY 1"),
    )


def migrated(dimensions: int = 3, schema: str = "public") -> set[str]:
    return {
        line.replace("(384)", f"({dimensions})").replace("public.", f"{schema}.")
        for line in BASELINE | LATER
    }


@asynccontextmanager
async def held(dsn: str, *statements: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        for statement in statements:
            await connection.execute(statement)
        yield connection
    finally:
        await connection.close()


async def backend(dsn: str, like: str) -> int:
    """The process that runs such a statement, once it does."""
    query = (
        "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND datname = current_database() "
        "AND pid <> pg_backend_pid() AND query LIKE $1"
    )
    for _ in range(400):
        if pids := await rows(dsn, query, like):
            return int(pids[0])
        await asyncio.sleep(0.02)
    raise AssertionError(like)


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owned_table, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(adopting, "PAUSE_SECONDS", 0.1)


@pytest.mark.parametrize("dimensions", [3, 384, 1536])
@pytest.mark.parametrize("form", FORMS)
async def test_every_row_of_either_form_is_kept_and_the_schema_is_as_migrated(
    each_empty_dsn: str, form: str, dimensions: int
) -> None:
    dsn = await make(each_empty_dsn, form, dimensions)
    before = await stored(dsn)
    done = await adopt(Settings(dsn=dsn))
    after = await stored(dsn)
    if form == "embedding":
        query = "SELECT id || created_at::text FROM qortex_vectors ORDER BY 1"
        after["created_at"] = await rows(dsn, query)
    assert after == before
    assert len(after["qortex_vectors"]) == 60
    assert await catalogue(dsn) == migrated(dimensions)
    assert await migrations.drift(Settings(dsn=dsn)) == []
    assert await rows(dsn, f"SELECT version_num FROM {VERSION_TABLE}") == [HEAD]
    assert done.state == await migrations.check(Settings(dsn=dsn))
    assert (done.state.is_current, done.state.dimensions) == (True, dimensions)
    assert [table.rows for table in done.tables] == [60, 30, 30, 30]
    assert all(table.checksum == table.checksum_after for table in done.tables)
    assert len({table.checksum for table in done.tables}) == 4
    assert (done.renames, done.pending_index, done.built) == (form == "embedding", None, None)
    assert (await migrations.upgrade(Settings(dsn=dsn))).is_current


@pytest.mark.parametrize("form", FORMS)
async def test_the_three_stores_work_on_what_was_adopted(empty_dsn: str, form: str) -> None:
    dsn = await make(empty_dsn, form)
    (vector,) = await rows(dsn, f"SELECT {form}::real[] FROM qortex_vectors WHERE id = 'r7'")
    await adopt(Settings(dsn=dsn))
    async with Database.connect(dsn) as db:
        index = PgVectorIndex(db, dimensions=3)
        assert (await index.search(list(vector), top_k=1))[0][0] == "r7"
        await index.add(["new"], [[1.0, 2.0, 3.0]])
        assert await index.size() == 61
        interoception = PostgresInteroceptionStore(db)
        assert (await interoception.load_factors())["knoten ü7"] == 1.0
        await interoception.save_edges({("a", "b"): EdgeStatsFactory.build()})
        assert (await interoception.load_edges())["a3", "b3"].scores == [1.0, 1.0]
        learning = PostgresLearningStore("prompts", db)
        assert (await learning.get("arm3")).alpha == 2.0
        await learning.put("arm3", ArmStateFactory.build())
        assert len(await learning.get_all()) == 30


@pytest.mark.parametrize("missing", ["qortex_vectors", *OTHERS])
async def test_a_missing_table_is_made_as_the_migrations_make_it(
    empty_dsn: str, missing: str
) -> None:
    dsn = await make(empty_dsn, without=(missing,))
    before = await stored(dsn)
    done = await adopt(Settings(dsn=dsn, dimensions=3))
    after = await stored(dsn)
    assert after.pop(missing) == []
    before.pop("created_at", None)
    assert after == before
    assert await catalogue(dsn) == migrated()
    assert {table.name for table in done.tables if table.form == "missing"} == {missing}
    assert await migrations.drift(Settings(dsn=dsn)) == []


async def test_one_table_alone_is_adopted_and_pgvector_comes_with_the_vectors(
    empty_dsn: str,
) -> None:
    dsn = await make(empty_dsn, without=("qortex_vectors", *list(OTHERS)[:2]))
    planned = await adopt(Settings(dsn=dsn), dry_run=True)
    assert planned.steps[0] == "CREATE EXTENSION IF NOT EXISTS vector"
    done = await adopt(Settings(dsn=dsn))
    assert await catalogue(dsn) == migrated(384)
    assert (done.state.dimensions, done.pending_index) == (384, None)


async def test_what_a_host_added_stays_and_is_told(empty_dsn: str) -> None:
    dsn = await make(empty_dsn)
    await execute(
        dsn,
        "CREATE TABLE notes (vector_id text REFERENCES qortex_vectors, n int)",
        "INSERT INTO notes VALUES ('r1', 1)",
        "CREATE INDEX by_time ON qortex_vectors (created_at)",
        "ALTER TABLE learning_arm_states ADD CONSTRAINT sane CHECK (pulls >= 0)",
        "CREATE FUNCTION quiet() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE TRIGGER watch AFTER INSERT ON qortex_vectors EXECUTE FUNCTION quiet()",
        "GRANT SELECT ON qortex_vectors TO PUBLIC",
        "COMMENT ON TABLE qortex_vectors IS 'ours'",
        "COMMENT ON COLUMN qortex_vectors.id IS 'the chunk''s key'",
        "CREATE VIEW shown AS SELECT id, embedding FROM qortex_vectors",
    )
    done = await adopt(Settings(dsn=dsn))
    kept = "\n".join(done.kept)
    for words in ("by_time", "constraint sane", "watch", "PUBLIC", "its comment", "on notes"):
        assert words in kept
    assert done.warnings == ("the comment of qortex_vectors.id is replaced: the chunk's key",)
    found = await catalogue(dsn)
    assert migrated() < found
    assert any("by_time" in line for line in found)
    assert await rows(dsn, "SELECT obj_description('qortex_vectors'::regclass)") == ["ours"]
    assert await rows(dsn, "SELECT count(embedding) FROM shown") == [60]
    assert await rows(dsn, "SELECT vector_id FROM notes") == ["r1"]
    query = "SELECT has_table_privilege('pg_monitor', 'qortex_vectors', 'SELECT')"
    assert await rows(dsn, query) == [True]


@pytest.mark.parametrize("form", FORMS)
async def test_a_missing_index_is_built_after_the_transaction(
    each_empty_dsn: str, form: str
) -> None:
    dsn = await make(each_empty_dsn, form, index=False)
    planned = await adopt(Settings(dsn=dsn), dry_run=True)
    assert planned.pending_index == NAME
    assert "CREATE INDEX CONCURRENTLY" in planned.steps[-1]
    seen: list[migrations.IndexProgress] = []
    done = await adopt(Settings(dsn=dsn), on_progress=seen.append)
    assert done.built is not None
    assert (done.built.name, done.pending_index) == (NAME, None)
    assert seen[-1].phase == "finished"
    assert await catalogue(dsn) == migrated()
    assert "qortex_db_pending_indexes" not in await relations(dsn)


async def test_the_index_under_its_old_name_is_not_built_again(empty_dsn: str) -> None:
    dsn = await make(empty_dsn)
    node = "SELECT relfilenode FROM pg_class WHERE relname = $1"
    before = await rows(dsn, node, "idx_qortex_vectors_embedding")
    await adopt(Settings(dsn=dsn))
    assert await rows(dsn, node, NAME) == before


async def test_an_index_that_a_build_left_invalid_is_replaced(each_empty_dsn: str) -> None:
    dsn = await make(each_empty_dsn, index=False)
    async with held(dsn, "INSERT INTO qortex_vectors (id) VALUES ('open')"):
        connection = await asyncpg.connect(dsn)
        await connection.execute("SET statement_timeout = '300ms'")
        with pytest.raises(asyncpg.QueryCanceledError):
            await connection.execute(REAL_INDEX.replace("INDEX", "INDEX CONCURRENTLY", 1))
        await connection.close()
    assert any("INVALID" in line for line in await catalogue(dsn))
    done = await adopt(Settings(dsn=dsn))
    assert "REINDEX INDEX CONCURRENTLY" in done.steps[-1]
    assert await catalogue(dsn) == migrated()


@pytest.mark.parametrize(
    "other",
    [
        "USING hnsw (embedding vector_l2_ops)",
        "USING hnsw (embedding vector_cosine_ops) WITH (m='8')",
        "USING hnsw (embedding vector_cosine_ops) WHERE (id <> 'x'::text)",
        "USING ivfflat (embedding vector_cosine_ops) WITH (lists='2')",
    ],
)
async def test_an_index_that_is_not_the_baselines_is_kept_beside_it(
    empty_dsn: str, other: str
) -> None:
    dsn = await make(empty_dsn, index=False)
    await execute(dsn, f"CREATE INDEX idx_qortex_vectors_embedding ON qortex_vectors {other}")
    done = await adopt(Settings(dsn=dsn))
    assert "idx_qortex_vectors_embedding" in done.kept[0]
    theirs = {line for line in await catalogue(dsn) if "idx_qortex_vectors_embedding" in line}
    assert await catalogue(dsn) == migrated() | theirs
    assert len(theirs) == 1


async def test_a_second_index_like_ours_is_kept(empty_dsn: str) -> None:
    dsn = await make(empty_dsn)
    await execute(dsn, f"CREATE INDEX {NAME} ON qortex_vectors USING hnsw "
                  "(embedding vector_cosine_ops)")  # fmt: skip
    done = await adopt(Settings(dsn=dsn))
    assert "idx_qortex_vectors_embedding" in done.kept[0]
    assert migrated() < await catalogue(dsn)


async def test_defaults_and_nulls_become_the_baselines(empty_dsn: str) -> None:
    dsn = await make(empty_dsn, without=("interoception_factors",))
    await execute(
        dsn,
        "CREATE TABLE interoception_factors (node_id text DEFAULT 'x' PRIMARY KEY, "
        "weight float8 DEFAULT 1, updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP)",
        "INSERT INTO interoception_factors VALUES ('a', 2)",
        "ALTER TABLE qortex_vectors ALTER created_at DROP DEFAULT, ALTER embedding SET NOT NULL",
        "ALTER INDEX idx_learning_arm_states_context RENAME TO by_context",
        'ALTER TABLE learning_arm_states RENAME CONSTRAINT learning_arm_states_pkey TO "P \'k"',
    )
    await adopt(Settings(dsn=dsn))
    assert await catalogue(dsn) == migrated()
    assert await rows(dsn, "SELECT weight FROM interoception_factors") == [2.0]


@pytest.mark.parametrize("form", FORMS)
async def test_a_schema_of_its_own_is_adopted_there(empty_dsn: str, form: str) -> None:
    await execute(empty_dsn, 'CREATE SCHEMA "Own"', "CREATE EXTENSION vector SCHEMA public")
    inside = empty_dsn + ("&" if "?" in empty_dsn else "?") + "options=-csearch_path%3DOwn,public"
    connection = await asyncpg.connect(empty_dsn)
    await connection.execute('SET search_path = "Own", public')
    for statement in (
        FORMS[form][0].format(n=3),
        FORMS[form][1],
        *(one for name in OTHERS for one in (*OTHERS[name], FILL_OTHERS[name])),
    ):
        await connection.execute(statement)
    await connection.close()
    assert inside
    done = await adopt(Settings(dsn=empty_dsn, db_schema="Own"))
    assert done.schema == "Own"
    assert await catalogue(empty_dsn, '"Own"') == migrated(schema='"Own"')
    assert await catalogue(empty_dsn) == set()
    query = f'SELECT version_num FROM "Own".{VERSION_TABLE}'
    assert await rows(empty_dsn, query) == [HEAD]


REFUSALS = {
    "a wrong type": (
        "ALTER TABLE interoception_factors ALTER weight TYPE real",
        "interoception_factors.weight is real, not double precision",
    ),
    "a time without a zone": (
        "ALTER TABLE learning_arm_states ALTER last_updated TYPE timestamp",
        "learning_arm_states.last_updated is timestamp without time zone",
    ),
    "a collation": (
        'ALTER TABLE qortex_vectors ALTER id TYPE text COLLATE "C"',
        'qortex_vectors.id is text COLLATE "C", not text',
    ),
    "an unlogged table": (
        "ALTER TABLE learning_arm_states SET UNLOGGED",
        "learning_arm_states is unlogged",
    ),
    "halves": (
        (
            "DROP INDEX idx_qortex_vectors_embedding; "
            "ALTER TABLE qortex_vectors ALTER embedding TYPE halfvec(3)"
        ),
        "qortex_vectors.embedding is halfvec(3), not vector",
    ),
    "a missing column": (
        "ALTER TABLE interoception_edge_buffer DROP scores",
        "interoception_edge_buffer.scores is missing",
    ),
    "no vectors in it": (
        "ALTER TABLE qortex_vectors DROP embedding",
        "qortex_vectors.vec is missing (nor embedding)",
    ),
    "both forms at once": (
        "ALTER TABLE qortex_vectors ADD vec vector(3)",
        "qortex_vectors.embedding is not qortex's",
    ),
    "a column of a host": (
        "ALTER TABLE qortex_vectors ADD payload jsonb",
        "qortex_vectors.payload is not qortex's",
    ),
    "another key": (
        (
            "ALTER TABLE interoception_edge_buffer DROP CONSTRAINT interoception_edge_buffer_pkey, "
            "ADD PRIMARY KEY (tgt_id, src_id)"
        ),
        "has PRIMARY KEY (tgt_id, src_id), not PRIMARY KEY (src_id, tgt_id)",
    ),
    "no key": (
        "ALTER TABLE qortex_vectors DROP CONSTRAINT qortex_vectors_pkey",
        "qortex_vectors has no primary key",
    ),
    "a key that can be deferred": (
        (
            "ALTER TABLE qortex_vectors DROP CONSTRAINT qortex_vectors_pkey, "
            "ADD PRIMARY KEY (id) DEFERRABLE"
        ),
        "PRIMARY KEY (id) DEFERRABLE",
    ),
    "nulls": (
        (
            "ALTER TABLE learning_arm_states ALTER beta DROP NOT NULL; "
            "UPDATE learning_arm_states SET beta = NULL WHERE pulls < 3"
        ),
        "learning_arm_states has 2 rows without beta (NULL)",
    ),
    "no dimension": (
        (
            "DROP INDEX idx_qortex_vectors_embedding; "
            "ALTER TABLE qortex_vectors ALTER embedding TYPE vector"
        ),
        "qortex_vectors.embedding declares no dimension",
    ),
    "too many dimensions": (
        (
            "DROP TABLE qortex_vectors; "
            "CREATE TABLE qortex_vectors (id text PRIMARY KEY, embedding vector(2001))"
        ),
        "holds 2001 dimensions, and an HNSW index on a vector column at most 2,000",
    ),
    "a view": (
        "ALTER TABLE qortex_vectors RENAME TO v; CREATE VIEW qortex_vectors AS SELECT * FROM v",
        "qortex_vectors is a view, not a table",
    ),
    "partitions": (
        (
            "DROP TABLE qortex_vectors; CREATE TABLE qortex_vectors "
            "(id text PRIMARY KEY, vec vector(3)) PARTITION BY HASH (id)"
        ),
        "qortex_vectors is a partitioned table",
    ),
    "children": (
        "CREATE TABLE child () INHERITS (interoception_factors)",
        "interoception_factors is part of an inheritance",
    ),
    "a generated column": (
        (
            "ALTER TABLE interoception_edge_buffer DROP hit_count, "
            "ADD hit_count int GENERATED ALWAYS AS (jsonb_array_length(scores)) STORED"
        ),
        "interoception_edge_buffer.hit_count is generated",
    ),
    "rules": (
        "CREATE RULE r AS ON INSERT TO interoception_factors DO ALSO SELECT 1",
        "interoception_factors has rules",
    ),
    "hidden rows": (
        "ALTER TABLE qortex_vectors FORCE ROW LEVEL SECURITY",
        "qortex_vectors forces row level security",
    ),
    "a name taken": (
        "CREATE TABLE ix_qortex_vectors_vec (n int)",
        "the name ix_qortex_vectors_vec is taken",
    ),
    "our name on another index": (
        "CREATE INDEX ix_qortex_vectors_vec ON qortex_vectors (created_at)",
        "the name ix_qortex_vectors_vec is taken, an index on qortex_vectors",
    ),
    "an index that waits": (
        (
            "CREATE VIEW qortex_db_pending_indexes AS SELECT 'qortex_vectors' AS table_name, "
            "'lost' AS name, 'CREATE INDEX' AS definition, '' AS tablespace, NULL::text AS comment"
        ),
        "the index lost waits for `qortex-db index rebuild`",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_what_is_not_as_it_should_be_is_refused_and_nothing_changes(
    empty_dsn: str, case: str
) -> None:
    dsn = await make(empty_dsn)
    statement, words = REFUSALS[case]
    await execute(dsn, statement)
    before = await everything(dsn)
    for dry_run in (True, False):
        with pytest.raises(AdoptionRefusedError) as caught:
            await adopt(Settings(dsn=dsn), dry_run=dry_run)
        assert any(words in line for line in caught.value.differences), caught.value
        assert all(line in str(caught.value) for line in caught.value.differences)
    assert await everything(dsn) == before


async def test_all_differences_are_told_at_once(empty_dsn: str) -> None:
    dsn = await make(empty_dsn)
    await execute(
        dsn,
        "ALTER TABLE interoception_factors ALTER weight TYPE real, ADD extra int, DROP updated_at",
        "ALTER TABLE learning_arm_states DROP CONSTRAINT learning_arm_states_pkey, DROP pulls",
    )
    with pytest.raises(AdoptionRefusedError) as caught:
        await adopt(Settings(dsn=dsn))
    assert len(caught.value.differences) == 5


async def test_tables_in_two_schemas_or_of_two_owners_are_refused(empty_dsn: str) -> None:
    dsn = await make(empty_dsn)
    await execute(dsn, f'CREATE SCHEMA "{"x"}"', "ALTER TABLE interoception_factors SET SCHEMA x")
    await execute(dsn, "ALTER TABLE learning_arm_states OWNER TO pg_monitor")
    await execute(
        dsn, "DO $$BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = public, x', "
        "current_database()); END$$"
    )  # fmt: skip
    with pytest.raises(AdoptionRefusedError) as caught:
        await adopt(Settings(dsn=dsn))
    assert any("in the schemas public, x" in line for line in caught.value.differences)
    assert any("belong to pg_monitor, postgres" in line for line in caught.value.differences)


ROLE = "DO 'BEGIN IF to_regrole(''{0}'') IS NULL THEN CREATE ROLE {0} LOGIN; END IF; END'"


async def test_only_the_owner_adopts(empty_dsn: str) -> None:
    dsn = await make(empty_dsn)
    await execute(dsn, ROLE.format("stranger"), "GRANT SELECT ON ALL TABLES IN SCHEMA public "
                  "TO stranger")  # fmt: skip
    before = await everything(dsn)
    with pytest.raises(AdoptionRefusedError, match="belongs to postgres: connect as that role"):
        await adopt(Settings(dsn=dsn.replace("postgres:@", "stranger@")))
    assert await everything(dsn) == before
    await execute(dsn, "DROP OWNED BY stranger")


async def test_what_a_superuser_adopts_stays_its_owners(empty_dsn: str) -> None:
    dsn = await make(empty_dsn, index=False, without=("interoception_factors",))
    await execute(
        dsn,
        ROLE.format("keeper"),
        "GRANT CREATE ON SCHEMA public TO keeper",
        "ALTER TABLE qortex_vectors OWNER TO keeper",
        "ALTER TABLE interoception_edge_buffer OWNER TO keeper",
        "ALTER TABLE learning_arm_states OWNER TO keeper",
    )
    await adopt(Settings(dsn=dsn))
    query = (
        "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class "
        "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i') "
    )
    assert await rows(dsn, query) == ["keeper"]
    keeper = Settings(dsn=dsn.replace("postgres:@", "keeper@"))
    assert (await migrations.check(keeper)).is_current
    await execute(dsn, "DROP OWNED BY keeper")


async def test_no_table_of_qortex_is_not_found(empty_dsn: str) -> None:
    with pytest.raises(NotFoundError, match="qortex-db upgrade"):
        await adopt(Settings(dsn=empty_dsn))
    assert await relations(empty_dsn) == set()


async def test_another_dimension_in_the_settings_is_refused(empty_dsn: str) -> None:
    dsn = await make(empty_dsn)
    with pytest.raises(DimensionMismatchError):
        await adopt(Settings(dsn=dsn, dimensions=4))
    await execute(dsn, "DROP TABLE qortex_vectors")
    with pytest.raises(InvalidInputError, match="2000"):
        await adopt(Settings(dsn=dsn, dimensions=2001))
    assert VERSION_TABLE not in await relations(dsn)


async def test_rows_that_methods_refuse_are_warned_of_and_kept(empty_dsn: str) -> None:
    dsn = await make(empty_dsn)
    await execute(
        dsn,
        "INSERT INTO qortex_vectors VALUES ('', '[1,2,3]'), (repeat('x', 1025), NULL)",
        "INSERT INTO interoception_factors VALUES ('n', 'NaN'), ('i', '-Infinity')",
        "INSERT INTO interoception_edge_buffer VALUES ('z', 'a', -1, '{}')",
        "INSERT INTO learning_arm_states VALUES ('l', 'default', 'a', 1, 1, 1, 'NaN')",
    )
    before = await stored(dsn)
    done = await adopt(Settings(dsn=dsn))
    before.pop("created_at")
    assert await stored(dsn) == before
    assert [line.split(" has ")[1] for line in done.warnings] == [
        "2 rows whose key is empty or longer than 1,024 bytes, which methods refuse",
        "1 row without a vector, which no search finds",
        "2 rows with a weight that is no number",
        "1 row whose src_id is not the smaller of the pair",
        "1 row with a negative hit_count",
        "1 row with scores that are no JSON array",
        "1 row with a total_reward that is no number",
    ]


async def test_arms_that_are_no_posteriors_are_refused_before_anything_is_changed(
    empty_dsn: str,
) -> None:
    dsn = await make(empty_dsn)
    await execute(
        dsn,
        "INSERT INTO learning_arm_states VALUES ('l', 'default', 'a', 1, -2.5, 1, 3), "
        "('l', 'default', 'b', 'NaN', 1, 1, 3), ('l', 'default', 'c', 1, 1, -1, 3)",
    )
    before = await everything(dsn)
    for dry_run in (True, False):
        with pytest.raises(AdoptionRefusedError) as caught:
            await adopt(Settings(dsn=dsn), dry_run=dry_run)
        said = "".join(caught.value.differences)
        assert "2 rows whose alpha and beta are not both positive numbers: mend or" in said
        assert "1 row with negative pulls: mend or delete such arms" in said
    assert await everything(dsn) == before
    page = PAGE.read_text().split("UPDATE learning_arm_states")[1].split("```")[0]
    await execute(dsn, f"UPDATE learning_arm_states{page}")
    assert (await adopt(Settings(dsn=dsn))).state.is_current


@pytest.mark.parametrize("index", [True, False])
async def test_a_dry_run_changes_nothing_and_says_what_is_done_later(
    each_empty_dsn: str, *, index: bool
) -> None:
    dsn = await make(each_empty_dsn, index=index, without=("interoception_factors",))
    before = await everything(dsn)
    planned = await adopt(Settings(dsn=dsn), dry_run=True)
    assert await everything(dsn) == before
    assert planned.dry_run
    assert planned.renames
    done = await adopt(Settings(dsn=dsn))
    assert (done.steps, done.kept, done.warnings) == (planned.steps, planned.kept, planned.warnings)
    assert [t.checksum_after for t in done.tables if t.checksum] == [
        t.checksum for t in planned.tables if t.checksum
    ]
    assert planned.steps[:2] == (
        "ALTER TABLE public.qortex_vectors RENAME COLUMN embedding TO vec",
        (
            "ALTER TABLE public.qortex_vectors RENAME CONSTRAINT qortex_vectors_pkey "
            "TO pk_qortex_vectors"
        ),
    )


async def test_what_is_under_alembic_already_is_left_alone(dsn: str) -> None:
    before = await everything(dsn)
    done = await adopt(Settings(dsn=dsn))
    assert (done.tables, done.steps, done.state.is_current) == ((), (), True)
    assert await everything(dsn) == before


async def test_an_adoption_interrupted_before_the_upgrade_goes_on(empty_dsn: str) -> None:
    dsn = await make(empty_dsn)
    await adopt(Settings(dsn=dsn))
    await migrations.downgrade(Settings(dsn=dsn), "qortex_db_0002")
    await execute(dsn, f"DROP INDEX {NAME}")
    done = await adopt(Settings(dsn=dsn))
    assert done.steps[0] == f"upgrade to {HEAD}"
    assert done.built is not None
    assert await catalogue(dsn) == migrated()


async def test_a_note_of_a_build_that_ended_is_taken_away(empty_dsn: str) -> None:
    dsn = await make(empty_dsn)
    await adopt(Settings(dsn=dsn))
    create = "SELECT pg_get_indexdef('ix_qortex_vectors_vec'::regclass)"
    (definition,) = await rows(dsn, create)
    noted = json.dumps(
        [{"table_name": "qortex_vectors", "name": NAME, "definition": definition, "tablespace": ""}]
    )
    await execute(
        dsn,
        f"CREATE VIEW qortex_db_pending_indexes AS SELECT * FROM jsonb_to_recordset('{noted}') "
        "AS p (table_name text, name text, definition text, tablespace text, comment text)",
    )
    assert (await adopt(Settings(dsn=dsn))).pending_index is None
    assert await migrations.pending_indexes(Settings(dsn=dsn)) == []
    assert await catalogue(dsn) == migrated()


async def test_a_table_stamped_by_hand_is_refused(empty_dsn: str) -> None:
    dsn = await make(empty_dsn)
    await execute(
        dsn,
        f"CREATE TABLE {VERSION_TABLE} (version_num varchar(32) PRIMARY KEY)",
        f"INSERT INTO {VERSION_TABLE} VALUES ('{HEAD}')",
    )
    with pytest.raises(SchemaVersionError, match="stamped by hand"):
        await adopt(Settings(dsn=dsn))
    await execute(dsn, f"DELETE FROM {VERSION_TABLE}")
    assert (await adopt(Settings(dsn=dsn))).state.is_current


async def test_a_history_shared_with_a_host_gets_our_row_and_the_host_goes_on(
    empty_dsn: str, tmp_path: Path
) -> None:
    dsn = await make(empty_dsn)
    await execute(
        dsn,
        "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)",
        "INSERT INTO alembic_version VALUES ('host1')",
    )
    settings = Settings(dsn=dsn, version_table="alembic_version")
    done = await adopt(settings)
    query = "SELECT version_num FROM alembic_version ORDER BY 1"
    assert await rows(dsn, query) == ["host1", "qortex_db_0001"]
    assert (done.state.current, done.state.is_current) == ("qortex_db_0001", False)
    assert VERSION_TABLE not in await relations(dsn)
    scripts = tmp_path / "host"
    (scripts / "versions").mkdir(parents=True)
    (scripts / "env.py").write_text(HOST_ENV.format(options={}))
    second = HOST_REVISION.format(schema="").replace(
        '"host1", None, ("host",)', '"host2", "host1", None'
    )
    (scripts / "versions" / "host1.py").write_text(HOST_FIRST)
    (scripts / "versions" / "host2.py").write_text(second)
    (tmp_path / "alembic.ini").write_text(
        "[alembic]\nscript_location = %(here)s/host\npath_separator = newline\n"
        f"version_locations =\n  %(here)s/host/versions\n  {migrations.locate() / 'versions'}\n"
    )
    url = dsn.replace("postgresql://", "postgresql+asyncpg://")
    upgraded = await alembic("upgrade", "heads", cwd=tmp_path, HOST_URL=url)
    assert upgraded.code == 0, upgraded.err
    assert migrated() <= await catalogue(dsn)
    assert await rows(dsn, query) == ["host2", HEAD]
    assert (await adopt(settings)).state.is_current


async def test_a_version_table_of_another_name_is_made(empty_dsn: str) -> None:
    dsn = await make(empty_dsn)
    assert (await adopt(Settings(dsn=dsn, version_table="mine"))).state.is_current
    assert await rows(dsn, "SELECT version_num FROM mine") == [HEAD]


@pytest.mark.parametrize("how", ["kill", "cancel"])
async def test_killed_or_cancelled_in_the_middle_it_leaves_all_as_it_was(
    empty_dsn: str, how: str
) -> None:
    dsn = await make(empty_dsn)
    before = await everything(dsn)
    async with held(dsn, "SELECT FROM qortex_vectors"):
        task = asyncio.create_task(adopt(Settings(dsn=dsn)))
        pid = await backend(dsn, "LOCK TABLE%ACCESS EXCLUSIVE%")
        if how == "kill":
            await execute(dsn, f"SELECT pg_terminate_backend({pid})")
            with pytest.raises(UnavailableError):
                await task
        else:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert await everything(dsn) == before
    assert (await adopt(Settings(dsn=dsn))).state.is_current


SPOIL = """
CREATE FUNCTION spoil() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN {} END$$;
CREATE EVENT TRIGGER spoil ON ddl_command_end WHEN TAG IN ('CREATE TABLE')
    EXECUTE FUNCTION spoil();
"""


async def test_a_failure_after_the_renames_rolls_all_of_them_back(empty_dsn: str) -> None:
    dsn = await make(empty_dsn)
    await execute(dsn, SPOIL.format("RAISE EXCEPTION 'no';"))
    before = await everything(dsn)
    with pytest.raises(QortexDbError, match="RaiseError"):
        await adopt(Settings(dsn=dsn))
    assert await everything(dsn) == before


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM qortex_vectors WHERE id = 'r1';",
        "UPDATE qortex_vectors SET vec = '[1,2,3]' WHERE id = 'r1';",
        "UPDATE qortex_vectors SET created_at = NULL WHERE id = 'r1';",
        "UPDATE learning_arm_states SET beta = beta + 1e-12 WHERE pulls = 1;",
        "UPDATE interoception_edge_buffer SET scores = scores || '1' WHERE hit_count = 1;",
    ],
)
async def test_a_row_that_became_another_rolls_all_back(empty_dsn: str, change: str) -> None:
    dsn = await make(empty_dsn)
    await execute(dsn, SPOIL.format(change))
    before = await everything(dsn)
    with pytest.raises(QortexDbError, match="rolled back"):
        await adopt(Settings(dsn=dsn))
    assert await everything(dsn) == before


async def test_of_two_adopters_at_once_one_adopts(empty_dsn: str) -> None:
    dsn = await make(empty_dsn, index=False)
    done = await asyncio.gather(*(adopt(Settings(dsn=dsn)) for _ in range(2)))
    assert sorted(len(one.tables) for one in done) == [0, 4]
    assert sorted(one.built is not None for one in done) == [False, True]
    assert all(one.state.is_current and one.pending_index is None for one in done)
    assert await catalogue(dsn) == migrated()


async def test_readers_go_on_while_a_long_one_is_waited_for(empty_dsn: str) -> None:
    dsn = await make(empty_dsn)
    waits = []

    async def read(done: asyncio.Event) -> None:
        connection = await asyncpg.connect(dsn)
        while not done.is_set():
            started = time.monotonic()
            assert await connection.fetchval("SELECT count(*) FROM qortex_vectors") == 60
            waits.append(time.monotonic() - started)
            await asyncio.sleep(0.01)
        await connection.close()

    done = asyncio.Event()
    readers = [asyncio.create_task(read(done)) for _ in range(3)]
    async with held(dsn, "SELECT FROM qortex_vectors"):
        task = asyncio.create_task(adopt(Settings(dsn=dsn)))
        await asyncio.sleep(1.5)
        assert not task.done()
    assert (await task).state.is_current
    done.set()
    await asyncio.gather(*readers)
    assert len(waits) > 20
    assert max(waits) < 3


async def test_a_table_that_stays_in_use_is_not_waited_for_for_ever(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adopting, "LOCK_SECONDS", 0.5)
    dsn = await make(empty_dsn)
    before = await everything(dsn)
    for statement in ("SELECT FROM learning_arm_states", "DELETE FROM interoception_factors"):
        async with held(dsn, statement):
            with pytest.raises(LockTimeoutError, match="Stop qortex"):
                await adopt(Settings(dsn=dsn))
    assert await everything(dsn) == before


@pytest.mark.parametrize("how", ["kill", "cancel"])
@pytest.mark.parametrize("again", ["adopt", "rebuild"])
async def test_an_interrupted_build_stays_pending_until_it_is_done_again(
    empty_dsn: str, how: str, again: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = await make(empty_dsn, index=False)
    settings = Settings(dsn=dsn)

    async def behind_an_older_snapshot(*arguments: Any) -> Any:
        async with held(dsn, "SELECT 1"):
            return await restore_pending(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(adopting, "restore_pending", behind_an_older_snapshot)
        task = asyncio.create_task(adopt(settings))
        pid = await backend(dsn, "CREATE INDEX CONCURRENTLY%hnsw%")
        if how == "kill":
            await execute(dsn, f"SELECT pg_terminate_backend({pid})")
            done = await task
            assert (done.pending_index, done.built) == (NAME, None)
            assert done.failure
            assert done.state.is_current
        else:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert await rows(dsn, "SELECT name FROM qortex_db_pending_indexes") == [NAME]
    assert (await adopt(settings, dry_run=True)).pending_index == NAME
    assert await migrations.pending_indexes(settings) == [NAME]
    if again == "adopt":
        assert (await adopt(settings)).built is not None
    else:
        await migrations.rebuild_index(settings)
    assert await catalogue(dsn) == migrated()
    assert "qortex_db_pending_indexes" not in await relations(dsn)


async def test_a_hosts_engine_is_adopted_through_and_left_as_it_was(empty_dsn: str) -> None:
    await execute(empty_dsn, "CREATE SCHEMA inner_room")
    dsn = await make(empty_dsn, index=False)
    for name in ("qortex_vectors", *OTHERS):
        await execute(dsn, f"ALTER TABLE {name} SET SCHEMA inner_room")
    engine = create_async_engine(
        dsn.replace("postgresql://", "postgresql+asyncpg://"), pool_size=1, max_overflow=0
    )

    @event.listens_for(engine.sync_engine, "connect")
    def find(connection: Any, _: object) -> None:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("SET search_path = inner_room, public")
        cursor.close()
        connection.autocommit = False

    async with engine.connect() as connection:
        before = (await connection.exec_driver_sql("SELECT pg_backend_pid()")).scalar()
    done = await adopt(engine)
    assert (done.schema, done.state.is_current, done.built is not None) == (
        "inner_room",
        True,
        True,
    )
    async with engine.connect() as connection:  # the one of before
        query = "SELECT pg_backend_pid(), current_setting('search_path'), current_user"
        row = (await connection.exec_driver_sql(query)).one()
        assert row[0] == before
        assert row[1:] == ("inner_room, public", "postgres")
    await engine.dispose()


def test_the_command_tells_the_plan_then_what_it_did(empty_dsn: str) -> None:
    asyncio.run(make(empty_dsn, index=False, without=("interoception_factors",)))
    given = {"PGVECTOR_DSN": empty_dsn}
    code, printed, error = run("adopt", "--dry-run", **given)
    assert (code, error) == (0, "")
    for words in (
        "Stop qortex first",
        "Writers wait",
        "RENAME COLUMN embedding TO vec",
        "missing",
        "stamp qortex_db_0001",
        f"upgrade to {HEAD}",
        "CREATE INDEX CONCURRENTLY",
        "Nothing was changed",
    ):
        assert words in printed
    assert run("check", **given)[0] == 1
    code, printed, error = run("adopt", **given)
    assert (code, error) == (0, "")
    assert "Every row is there, as it was." in printed
    assert max(len(line) for line in printed.splitlines() if "│" in line or "─" in line) <= 80
    checksums = re.findall(r"qortex_vectors +60 +([0-9a-f]{16}) +([0-9a-f]{16})", printed)
    assert len(checksums) == 1
    assert len(set(checksums[0])) == 1
    assert f"{NAME} is built" in printed
    assert run("check", **given)[0] == 0
    code, printed, error = run("adopt", **given)
    assert (code, error) == (0, "")
    assert "under Alembic already" in printed


def test_the_command_refuses_line_by_line(empty_dsn: str) -> None:
    asyncio.run(make(empty_dsn))
    asyncio.run(execute(empty_dsn, "ALTER TABLE interoception_factors DROP weight, ADD b int"))
    for arguments in (["adopt"], ["adopt", "--dry-run"]):
        code, _, error = run(*arguments, PGVECTOR_DSN=empty_dsn)
        assert code == 1
        assert "- interoception_factors.weight is missing" in error.splitlines()
        assert any(line.startswith("- interoception_factors.b is not") for line in
                   error.splitlines())  # fmt: skip
        assert "Traceback" not in error


def test_status_lists_what_is_pending(dsn: str) -> None:
    view = (
        "CREATE VIEW qortex_db_pending_indexes AS SELECT 'qortex_vectors' AS table_name, "
        "'lost' AS name, '' AS definition, '' AS tablespace, NULL::text AS comment"
    )
    asyncio.run(execute(dsn, view))
    assert "lost" in run("status", PGVECTOR_DSN=dsn)[1]
    code, printed, _ = run("status", "--json", PGVECTOR_DSN=dsn)
    assert (code, json.loads(printed)["pending_indexes"]) == (0, ["lost"])


PAGE = ROOT / "docs/migrations/adoption.md"


def test_the_dry_run_on_the_page_is_a_real_one(empty_dsn: str) -> None:
    asyncio.run(make(empty_dsn, dimensions=384))
    printed = run("adopt", "--dry-run", PGVECTOR_DSN=empty_dsn)[1].splitlines()
    shown = PAGE.read_text().split("```console")[1].split("```")[0].splitlines()
    begins = next(number for number, line in enumerate(shown) if line.startswith("Stop qortex"))
    figures = re.compile(r"\([\d.]+ KiB\)")
    starts = next(number for number, line in enumerate(printed) if line.startswith("Stop qortex"))
    expected = figures.sub("", " ".join(shown[begins:])).split()  # whose lines are no wider
    assert figures.sub("", " ".join(printed[starts:])).split() == expected


async def test_the_example_of_the_page_runs(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = await make(empty_dsn, dimensions=384)
    monkeypatch.setenv("PGVECTOR_DSN", dsn)
    await program(*BLOCK.findall(PAGE.read_text()))()
    assert await catalogue(dsn) == migrated(384)


async def test_the_way_back_on_the_page_leads_back(empty_dsn: str) -> None:
    dsn = await make(empty_dsn)
    before = await stored(dsn)
    await adopt(Settings(dsn=dsn))
    await execute(dsn, PAGE.read_text().split("```sql")[1].split("```")[0])
    await execute(
        dsn, REAL.format(n=3), REAL_INDEX, *(s for table in OTHERS.values() for s in table)
    )
    assert await stored(dsn) == before
    assert "idx_qortex_vectors_embedding" in await relations(dsn)
    assert (await adopt(Settings(dsn=dsn))).renames
