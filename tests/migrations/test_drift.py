"""Each kind of difference between a database and the models is found, and nothing else is said."""

from __future__ import annotations

import asyncio
import enum
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from pgvector.sqlalchemy import Vector
from sqlalchemy import (
    DDL,
    CheckConstraint,
    Column,
    Computed,
    Enum,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Sequence,
    Table,
    Text,
    UniqueConstraint,
    event,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, INT4RANGE, JSONB, ExcludeConstraint

from qortex_db import (
    InvalidInputError,
    LockTimeoutError,
    QortexDbError,
    QortexVector,
    SchemaVersionError,
    Settings,
    migrations,
)
from qortex_db.migrations.connection import migration_engine
from qortex_db.migrations.drift import drift_of
from qortex_db.models import NAMING_CONVENTION, Base
from qortex_db.types import Embedding
from support.catalogue import execute, rows
from support.commands import ROOT, run
from support.pages import BLOCK, program

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

VEC, FACTORS, EDGES, ARMS = (
    "qortex_vectors",
    "interoception_factors",
    "interoception_edge_buffer",
    "learning_arm_states",
)


def _vec(definition: str) -> str:
    """The vector index, made anew."""
    return f"DROP INDEX ix_{VEC}_vec; CREATE INDEX ix_{VEC}_vec ON {VEC} USING {definition}"


def _arms(definition: str, unique: str = "") -> str:
    name = "idx_learning_arm_states_context"
    return f"DROP INDEX {name}; CREATE {unique} INDEX {name} ON {ARMS} {definition}"


def _key(definition: str) -> str:
    name = f"pk_{FACTORS}"
    return f"ALTER TABLE {FACTORS} DROP CONSTRAINT {name}, ADD CONSTRAINT {name} {definition}"


WORDS = f"index ix_{VEC}_words"
GIN_WORDS = (
    "USING gin (to_tsvector('english'::regconfig, "
    "translate(\"left\"({}, 100000), '/.-@<&+~'::text, ' '::text)))"
)
INDEX, PK = f"index ix_{VEC}_vec", f"constraint pk_{FACTORS}"
CONTEXT = "index idx_learning_arm_states_context"

# What is done to the database, and all that is found then: objects, and what they are ("-": gone).
OURS = {
    # tables
    f"DROP TABLE {FACTORS}": "table: -",
    f"ALTER TABLE {FACTORS} RENAME TO t; CREATE VIEW {FACTORS} AS TABLE t": "table: view",
    f"ALTER TABLE {FACTORS} RENAME TO t; CREATE MATERIALIZED VIEW {FACTORS} AS TABLE t": (
        "table: materialized view"
    ),
    f"DROP TABLE {FACTORS}; CREATE TABLE {FACTORS} (node_id text) PARTITION BY HASH (node_id)": (
        "table: partitioned table"
    ),
    f"ALTER TABLE {FACTORS} SET UNLOGGED": "persistence: UNLOGGED",
    f"ALTER TABLE {FACTORS} SET (fillfactor = 70, autovacuum_enabled = off)": (
        "storage parameters: autovacuum_enabled=off, fillfactor=70"
    ),
    f"ALTER TABLE {VEC} SET (toast.autovacuum_enabled = off)": (
        "toast storage parameters: autovacuum_enabled=off"
    ),
    f"ALTER TABLE {FACTORS} ENABLE ROW LEVEL SECURITY": "row level security: ENABLE",
    f"ALTER TABLE {FACTORS} FORCE ROW LEVEL SECURITY": "row level security: FORCE, DISABLE",
    f"ALTER TABLE {FACTORS} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY": (
        "row level security: FORCE"
    ),
    f"CREATE POLICY own ON {FACTORS} FOR SELECT USING (node_id = current_user)": (
        "policy own: AS PERMISSIVE FOR SELECT TO PUBLIC USING (node_id = CURRENT_USER)"
    ),
    f"ALTER TABLE {FACTORS} REPLICA IDENTITY FULL": "replica identity: FULL",
    f"CREATE TABLE c () INHERITS ({FACTORS})": "child c: INHERITS",
    f"CREATE TABLE p (weight float8); ALTER TABLE {FACTORS} INHERIT p": "parent p: INHERITS",
    f"CREATE STATISTICS s (ndistinct) ON src_id, tgt_id FROM {EDGES}": (
        "statistics s: d ON src_id, tgt_id"
    ),
    f"COMMENT ON TABLE {FACTORS} IS 'mine'": "comment on table: 'mine'",
    # columns
    f"ALTER TABLE {VEC} DROP COLUMN document": f"column document: - | {WORDS}: -",
    f"ALTER TABLE {VEC} ADD COLUMN extra int": "column extra: integer",
    f"ALTER TABLE {VEC} RENAME document TO body": (
        f"column body: text | column document: - | {WORDS}: {GIN_WORDS.format('body')}"
    ),
    f"ALTER TABLE {ARMS} ALTER pulls TYPE bigint": "column pulls: bigint NOT NULL DEFAULT 0",
    f"ALTER TABLE {FACTORS} ALTER weight TYPE real": "column weight: real NOT NULL DEFAULT 1.0",
    f"ALTER TABLE {FACTORS} ALTER updated_at TYPE timestamptz(3)": (
        "column updated_at: timestamp(3) with time zone DEFAULT now()"
    ),
    f"ALTER TABLE {VEC} ALTER document TYPE varchar(9)": (
        f"column document: character varying(9) | {WORDS}: {GIN_WORDS.format('document::text')}"
    ),
    f'ALTER TABLE {VEC} ALTER document TYPE text COLLATE "C"': 'column document: text COLLATE "C"',
    f"DROP INDEX ix_{VEC}_vec; ALTER TABLE {VEC} ALTER vec TYPE vector": (
        f"column vec: vector | {INDEX}: -"
    ),
    f"DROP INDEX ix_{VEC}_vec; ALTER TABLE {VEC} ALTER vec TYPE halfvec(8)": (
        f"column vec: halfvec(8) | {INDEX}: -"
    ),
    f"DROP INDEX ix_{VEC}_vec; ALTER TABLE {VEC} ALTER vec TYPE vector(3000)": (
        f"column vec: vector(3000) | {INDEX}: -"
    ),
    f"ALTER TABLE {FACTORS} ALTER weight DROP NOT NULL": (
        "column weight: double precision DEFAULT 1.0"
    ),
    f"ALTER TABLE {VEC} ALTER vec SET NOT NULL": "column vec: vector(8) NOT NULL",
    f"ALTER TABLE {VEC} ADD CONSTRAINT n NOT NULL vec NOT VALID": (
        "column vec: vector(8) NOT NULL NOT VALID"
    ),
    f"ALTER TABLE {VEC} ADD CONSTRAINT n NOT NULL vec NO INHERIT": (
        "column vec: vector(8) NOT NULL NO INHERIT"
    ),
    f"ALTER TABLE {FACTORS} ALTER weight DROP DEFAULT": "column weight: double precision NOT NULL",
    f"ALTER TABLE {FACTORS} ALTER weight SET DEFAULT 0.5": (
        "column weight: double precision NOT NULL DEFAULT 0.5"
    ),
    f"ALTER TABLE {VEC} ALTER document SET DEFAULT ''": "column document: text DEFAULT ''::text",
    f"ALTER TABLE {VEC} ADD size int GENERATED ALWAYS AS (length(document)) STORED": (
        "column size: integer GENERATED ALWAYS AS (length(document)) STORED"
    ),
    f"ALTER TABLE {VEC} ADD size int GENERATED ALWAYS AS (length(document)) VIRTUAL": (
        "column size: integer GENERATED ALWAYS AS (length(document)) VIRTUAL"
    ),
    f"ALTER TABLE {ARMS} ALTER pulls DROP DEFAULT, ALTER pulls ADD GENERATED ALWAYS AS IDENTITY": (
        "column pulls: integer NOT NULL GENERATED ALWAYS AS IDENTITY (SEQUENCE AS integer START 1 "
        "INCREMENT 1 MINVALUE 1 MAXVALUE 2147483647 CACHE 1)"
    ),
    f"ALTER TABLE {VEC} ALTER vec SET STORAGE PLAIN": "column vec: vector(8) STORAGE PLAIN",
    f"ALTER TABLE {VEC} ALTER document SET COMPRESSION pglz": (
        "column document: text COMPRESSION pglz"
    ),
    f"ALTER TABLE {VEC} ALTER document SET STATISTICS 9": "column document: text STATISTICS 9",
    f"ALTER TABLE {VEC} ALTER id SET (n_distinct = -0.5)": (
        "column id: text NOT NULL (n_distinct=-0.5)"
    ),
    f"COMMENT ON COLUMN {FACTORS}.weight IS 'heavy'": "comment on column weight: 'heavy'",
    f"COMMENT ON COLUMN {FACTORS}.weight IS NULL": "comment on column weight: -",
    # constraints
    f"ALTER TABLE {FACTORS} DROP CONSTRAINT pk_{FACTORS}": f"{PK}: -",
    f"ALTER TABLE {FACTORS} RENAME CONSTRAINT pk_{FACTORS} TO other": (
        f"constraint other: PRIMARY KEY (node_id) USING btree (node_id) | {PK}: -"
    ),
    f"ALTER TABLE {EDGES} DROP CONSTRAINT pk_{EDGES}, "
    f"ADD CONSTRAINT pk_{EDGES} PRIMARY KEY (tgt_id, src_id)": (
        f"constraint pk_{EDGES}: PRIMARY KEY (tgt_id, src_id) USING btree (tgt_id, src_id)"
    ),
    _key("PRIMARY KEY (node_id) DEFERRABLE"): (
        f"{PK}: PRIMARY KEY (node_id) DEFERRABLE USING btree (node_id)"
    ),
    _key("PRIMARY KEY (node_id) WITH (fillfactor = 50)"): (
        f"{PK}: PRIMARY KEY (node_id) USING btree (node_id) WITH (fillfactor=50)"
    ),
    _key("UNIQUE (node_id)"): f"{PK}: UNIQUE (node_id) USING btree (node_id)",
    f"ALTER TABLE {FACTORS} ADD CONSTRAINT u UNIQUE (weight)": (
        "constraint u: UNIQUE (weight) USING btree (weight)"
    ),
    f"ALTER TABLE {FACTORS} ADD CONSTRAINT c CHECK (weight > 0) NOT VALID": (
        "constraint c: CHECK (weight > 0::double precision) NOT VALID"
    ),
    f"ALTER TABLE {FACTORS} ADD CONSTRAINT c CHECK (weight > 0) NOT ENFORCED": (
        "constraint c: CHECK (weight > 0::double precision) NOT ENFORCED"
    ),
    f"ALTER TABLE {FACTORS} ADD CONSTRAINT f FOREIGN KEY (node_id) REFERENCES {VEC}": (
        f"constraint f: FOREIGN KEY (node_id) REFERENCES {VEC}(id)"
    ),
    f"ALTER TABLE {FACTORS} ADD CONSTRAINT x EXCLUDE (weight WITH =)": (
        "constraint x: EXCLUDE USING btree (weight WITH =) USING btree (weight)"
    ),
    f"COMMENT ON CONSTRAINT pk_{FACTORS} ON {FACTORS} IS 'mine'": f"comment on {PK}: 'mine'",
    # indexes
    f"DROP INDEX ix_{VEC}_vec": f"{INDEX}: -",
    f"ALTER INDEX ix_{VEC}_vec RENAME TO other": (
        f"{INDEX}: - | index other: USING hnsw (vec vector_cosine_ops)"
    ),
    f"CREATE UNIQUE INDEX extra ON {VEC} (lower(document)) WHERE document <> ''": (
        "index extra: UNIQUE USING btree (lower(document)) WHERE document <> ''::text"
    ),
    _vec("hnsw (vec vector_l2_ops)"): f"{INDEX}: USING hnsw (vec vector_l2_ops)",
    _vec("ivfflat (vec vector_cosine_ops)"): f"{INDEX}: USING ivfflat (vec vector_cosine_ops)",
    _vec("hnsw (vec vector_cosine_ops) WITH (m = 8, ef_construction = 32)"): (
        f"{INDEX}: USING hnsw (vec vector_cosine_ops) WITH (ef_construction=32, m=8)"
    ),
    f"ALTER INDEX ix_{VEC}_vec SET (m = 9)": (
        f"{INDEX}: USING hnsw (vec vector_cosine_ops) WITH (m=9)"
    ),
    _vec("hnsw (vec vector_cosine_ops) WHERE document IS NOT NULL"): (
        f"{INDEX}: USING hnsw (vec vector_cosine_ops) WHERE document IS NOT NULL"
    ),
    _vec("hnsw ((vec::halfvec(8)) halfvec_cosine_ops)"): (
        f"{INDEX}: USING hnsw ((vec::halfvec(8)) halfvec_cosine_ops)"
    ),
    f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_{VEC}_vec'::regclass": (
        f"{INDEX}: USING hnsw (vec vector_cosine_ops) INVALID"
    ),
    f"UPDATE pg_index SET indisready = false WHERE indexrelid = 'ix_{VEC}_vec'::regclass": (
        f"{INDEX}: USING hnsw (vec vector_cosine_ops) INVALID"
    ),
    f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'pk_{FACTORS}'::regclass": (
        f"{PK}: PRIMARY KEY (node_id) USING btree (node_id) INVALID"
    ),
    _arms("(context_hash, learner_name)"): f"{CONTEXT}: USING btree (context_hash, learner_name)",
    _arms("(learner_name)"): f"{CONTEXT}: USING btree (learner_name)",
    _arms("USING hash (learner_name)"): f"{CONTEXT}: USING hash (learner_name)",
    _arms("(learner_name DESC, context_hash NULLS FIRST)"): (
        f"{CONTEXT}: USING btree (learner_name DESC, context_hash NULLS FIRST)"
    ),
    _arms("(learner_name, context_hash) INCLUDE (alpha)"): (
        f"{CONTEXT}: USING btree (learner_name, context_hash) INCLUDE (alpha)"
    ),
    _arms("(learner_name, context_hash)", unique="UNIQUE"): (
        f"{CONTEXT}: UNIQUE USING btree (learner_name, context_hash)"
    ),
    _arms("(learner_name, context_hash) NULLS NOT DISTINCT", unique="UNIQUE"): (
        f"{CONTEXT}: UNIQUE USING btree (learner_name, context_hash) NULLS NOT DISTINCT"
    ),
    _arms('(learner_name COLLATE "C", context_hash text_pattern_ops)'): (
        f'{CONTEXT}: USING btree (learner_name COLLATE "C", context_hash text_pattern_ops)'
    ),
    f"ALTER TABLE {ARMS} CLUSTER ON idx_learning_arm_states_context": (
        f"{CONTEXT}: USING btree (learner_name, context_hash) CLUSTER"
    ),
    f"COMMENT ON INDEX ix_{VEC}_vec IS 'mine'": f"comment on {INDEX}: 'mine'",
    # triggers and rules
    f"CREATE TRIGGER t BEFORE UPDATE ON {VEC} FOR EACH ROW "
    "EXECUTE FUNCTION suppress_redundant_updates_trigger()": (
        f"trigger t: CREATE TRIGGER t BEFORE UPDATE ON {VEC} FOR EACH ROW EXECUTE FUNCTION "
        "suppress_redundant_updates_trigger()"
    ),
    f"CREATE RULE r AS ON DELETE TO {VEC} DO INSTEAD NOTHING": (
        f"rule r: CREATE RULE r AS ON DELETE TO {VEC} DO INSTEAD NOTHING;"
    ),
}


class Mood(enum.Enum):
    CALM = "calm"
    LOUD = "loud"


def _host() -> MetaData:
    """A host's models: what ours have not."""
    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    Table(
        "teams",
        metadata,
        Column("id", Integer, Identity(start=10), primary_key=True),
        Column("name", Text(collation="C"), unique=True),
        comment="Who writes",
    )
    notes = Table(
        "notes",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("number", Integer, Sequence("numbers")),
        Column("parent_id", ForeignKey("notes.id")),
        Column("team_id", ForeignKey("teams.id", ondelete="CASCADE", deferrable=True)),
        Column("vector_id", ForeignKey(QortexVector.id)),  # in a metadata of its own
        Column("title", Text, nullable=False, index=True),
        Column("size", Integer, Computed("length(title)", persisted=True)),
        Column("mood", Enum(Mood)),
        Column("moods", ARRAY(Enum(Mood))),
        Column("kind", Enum("a", "b", name="kind", native_enum=False, create_constraint=True)),
        Column("data", JSONB),
        Column("span", INT4RANGE),
        Column("vec", Vector(3)),
        Column("own", Embedding(4)),
        Column("any", Embedding()),
        CheckConstraint("size > 0", name="positive"),
        UniqueConstraint("title", "team_id", deferrable=True, comment="One each"),
        UniqueConstraint("number", name="one", postgresql_nulls_not_distinct=True),
        ExcludeConstraint(("span", "&&"), using="gist", name="apart", where=text("size > 3")),
        Index(
            "ix_hnsw",
            "vec",
            postgresql_using="hnsw",
            postgresql_ops={"vec": "vector_l2_ops"},
            postgresql_with={"m": 8, "ef_construction": 32},
        ),
        Index(
            "ix_ivfflat",
            "own",
            postgresql_using="ivfflat",
            postgresql_ops={"own": "vector_ip_ops"},
            postgresql_with={"lists": 5},
            postgresql_concurrently=True,
        ),
        Index("ix_cast", text('(("any"::halfvec(3))) halfvec_l2_ops'), postgresql_using="hnsw"),
        Index("ix_where", "size", postgresql_where=text("title <> ' WITH (x)'"), unique=True),
        Index("ix_include", "size", postgresql_include=["number"]),
        Index("ix_gin", "data", postgresql_using="gin", postgresql_ops={"data": "jsonb_path_ops"}),
    )
    Index("ix_lower", func.lower(notes.c.title), notes.c.id.desc().nulls_last())
    trigger = DDL(
        "CREATE TRIGGER quiet BEFORE UPDATE ON %(fullname)s FOR EACH ROW "
        "EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    )
    event.listen(notes, "after_create", trigger, propagate=True)
    Table(
        "Logs", metadata, Column("Day", Integer, key="day"), postgresql_partition_by='RANGE ("Day")'
    )
    Table("fast", metadata, Column("id", Integer, primary_key=True), prefixes=["UNLOGGED"])
    return metadata


TRIGGER = "CREATE TRIGGER quiet BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION"
HOSTS = {
    "ALTER TABLE notes DROP CONSTRAINT fk_notes_team_id_teams, ADD CONSTRAINT "
    "fk_notes_team_id_teams FOREIGN KEY (team_id) REFERENCES teams (id)": (
        "constraint fk_notes_team_id_teams: FOREIGN KEY (team_id) REFERENCES teams(id)"
    ),
    "ALTER TABLE notes ALTER CONSTRAINT fk_notes_team_id_teams INITIALLY DEFERRED": (
        "constraint fk_notes_team_id_teams: FOREIGN KEY (team_id) REFERENCES teams(id) "
        "ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED"
    ),
    "CREATE SCHEMA o; CREATE TABLE o.teams (id int PRIMARY KEY); ALTER TABLE notes "
    "DROP CONSTRAINT fk_notes_team_id_teams, ADD CONSTRAINT fk_notes_team_id_teams "
    "FOREIGN KEY (team_id) REFERENCES o.teams (id) ON DELETE CASCADE DEFERRABLE": (
        "constraint fk_notes_team_id_teams: FOREIGN KEY (team_id) REFERENCES o.teams(id) "
        "ON DELETE CASCADE DEFERRABLE"
    ),
    "ALTER TABLE notes DROP CONSTRAINT fk_notes_parent_id_notes, ADD CONSTRAINT "
    "fk_notes_parent_id_notes FOREIGN KEY (parent_id) REFERENCES notes (id) NOT VALID": (
        "constraint fk_notes_parent_id_notes: FOREIGN KEY (parent_id) REFERENCES notes(id) "
        "NOT VALID"
    ),
    "ALTER TABLE notes DROP CONSTRAINT fk_notes_vector_id_qortex_vectors": (
        "constraint fk_notes_vector_id_qortex_vectors: -"
    ),
    f"ALTER TABLE {VEC} DISABLE TRIGGER ALL": (
        f"constraint fk_notes_vector_id_qortex_vectors: FOREIGN KEY (vector_id) REFERENCES "
        f"{VEC}(id) DISABLED"
    ),
    "ALTER TABLE notes DISABLE TRIGGER quiet": (
        f"trigger quiet: {TRIGGER} suppress_redundant_updates_trigger() DISABLED"
    ),
    "ALTER TABLE notes ENABLE ALWAYS TRIGGER quiet": (
        f"trigger quiet: {TRIGGER} suppress_redundant_updates_trigger() ENABLE ALWAYS"
    ),
    "DROP TRIGGER quiet ON notes": "trigger quiet: -",
    "ALTER TABLE notes DROP CONSTRAINT ck_notes_positive": "constraint ck_notes_positive: -",
    "ALTER TABLE notes DROP CONSTRAINT ck_notes_positive, ADD CONSTRAINT ck_notes_positive "
    "CHECK (size >= 0)": "constraint ck_notes_positive: CHECK (size >= 0)",
    "ALTER TABLE notes ALTER CONSTRAINT fk_notes_vector_id_qortex_vectors NOT ENFORCED": (
        f"constraint fk_notes_vector_id_qortex_vectors: FOREIGN KEY (vector_id) REFERENCES "
        f"{VEC}(id) NOT ENFORCED"
    ),
    "ALTER TABLE notes DROP CONSTRAINT one, ADD CONSTRAINT one UNIQUE (number)": (
        "constraint one: UNIQUE (number) USING btree (number)"
    ),
    "ALTER TABLE notes DROP CONSTRAINT apart, ADD CONSTRAINT apart "
    "EXCLUDE USING gist (span WITH &&)": (
        "constraint apart: EXCLUDE USING gist (span WITH &&) USING gist (span)"
    ),
    "COMMENT ON CONSTRAINT uq_notes_title_team_id ON notes IS NULL": (
        "comment on constraint uq_notes_title_team_id: -"
    ),
    "ALTER TABLE notes ALTER size SET EXPRESSION AS (length(title) + 1)": (
        "column size: integer GENERATED ALWAYS AS (length(title) + 1) STORED"
    ),
    "ALTER TABLE notes ALTER size DROP EXPRESSION": "column size: integer",
    "ALTER TABLE notes ALTER vec TYPE vector(2)": "column vec: vector(2)",
    "DROP INDEX ix_ivfflat; ALTER TABLE notes ALTER own TYPE vector": (
        "column own: vector | index ix_ivfflat: -"
    ),
    "ALTER TABLE teams ALTER name TYPE text": "column name: text",
    "ALTER TABLE teams ALTER id SET INCREMENT 2": (
        "column id: integer NOT NULL GENERATED BY DEFAULT AS IDENTITY (SEQUENCE AS integer "
        "START 10 INCREMENT 2 MINVALUE 1 MAXVALUE 2147483647 CACHE 1)"
    ),
    "ALTER TABLE teams ALTER id DROP IDENTITY": "column id: integer NOT NULL",
    "ALTER SEQUENCE notes_id_seq OWNED BY NONE": (
        "column id: integer NOT NULL DEFAULT nextval('notes_id_seq'::regclass)"
    ),
    "ALTER TYPE mood ADD VALUE 'SAD' BEFORE 'LOUD'": (
        "column mood: mood ('CALM', 'SAD', 'LOUD') | column moods: mood[] ('CALM', 'SAD', 'LOUD')"
    ),
    "COMMENT ON TABLE teams IS NULL": "comment on table: -",
    "DROP INDEX ix_where; CREATE UNIQUE INDEX ix_where ON notes (size)": (
        "index ix_where: UNIQUE USING btree (size)"
    ),
    "DROP INDEX ix_include; CREATE INDEX ix_include ON notes (size)": (
        "index ix_include: USING btree (size)"
    ),
    "DROP INDEX ix_gin; CREATE INDEX ix_gin ON notes USING gin (data)": (
        "index ix_gin: USING gin (data)"
    ),
    "DROP INDEX ix_lower; CREATE INDEX ix_lower ON notes (upper(title), id DESC NULLS LAST)": (
        "index ix_lower: USING btree (upper(title), id DESC NULLS LAST)"
    ),
    "ALTER INDEX ix_hnsw RESET (m)": (
        "index ix_hnsw: USING hnsw (vec vector_l2_ops) WITH (ef_construction=32)"
    ),
    "ALTER INDEX ix_ivfflat SET (lists = 9)": (
        "index ix_ivfflat: USING ivfflat (own vector_ip_ops) WITH (lists=9)"
    ),
    'DROP TABLE "Logs"; CREATE TABLE "Logs" ("Day" int)': "table: table",
    'DROP TABLE "Logs"; CREATE TABLE "Logs" ("Day" int) PARTITION BY LIST ("Day")': (
        'partition key: LIST ("Day")'
    ),
    "ALTER TABLE fast SET LOGGED": "persistence: -",
}


def _vec_index(table: Table) -> Index:
    return next(index for index in table.indexes if index.name == f"ix_{VEC}_vec")


# What is changed in a copy of our models, and what they say then.
MODELS: dict[str, Callable[[Any], object]] = {
    f"{INDEX}: USING hnsw (vec vector_l2_ops)": lambda t: (
        t.indexes.remove(_vec_index(t)),
        Index(
            f"ix_{VEC}_vec",
            t.c.vec,
            postgresql_using="hnsw",
            postgresql_ops={"vec": "vector_l2_ops"},
        ),
    ),
    f"{INDEX}: USING hnsw (vec vector_cosine_ops) WITH (ef_construction=32, m=8)": lambda t: [
        index.dialect_options["postgresql"].update({"with": {"m": 8, "ef_construction": 32}})
        for index in [_vec_index(t)]
    ],
    f"{INDEX}: USING hnsw (vec vector_cosine_ops) WHERE document IS NOT NULL": lambda t: [
        index.dialect_options["postgresql"].update({"where": t.c.document.is_not(None)})
        for index in [_vec_index(t)]
    ],
    "index ix_tags: USING gin (payload jsonb_path_ops)": lambda t: Index(
        "ix_tags",
        t.c.payload,
        postgresql_using="gin",
        postgresql_ops={"payload": "jsonb_path_ops"},
    ),
    "index ix_lower: UNIQUE USING btree (lower(document))": lambda t: Index(
        "ix_lower", func.lower(t.c.document), unique=True
    ),
    f"constraint ck_{VEC}_full: CHECK (document <> ''::text)": lambda t: t.append_constraint(
        CheckConstraint("document <> ''", name="full")
    ),
    f"constraint uq_{VEC}_document: UNIQUE (document) USING btree (document)": lambda t: (
        t.append_constraint(UniqueConstraint("document"))
    ),
    "column size: integer GENERATED ALWAYS AS (length(document)) STORED": lambda t: t.append_column(
        Column("size", Integer, Computed("length(document)", persisted=True))
    ),
    "column document: text DEFAULT 'none'::text": lambda t: t.append_column(
        Column("document", Text, server_default="none", comment=t.c.document.comment),
        replace_existing=True,
    ),
    "column document: text NOT NULL": lambda t: setattr(t.c.document, "nullable", False),
    "column vec: vector(9)": lambda t: setattr(t.c.vec, "type", Embedding(9)),
    "comment on column document: 'Words'": lambda t: setattr(t.c.document, "comment", "Words"),
    "comment on table: 'Vectors'": lambda t: setattr(t, "comment", "Vectors"),
}


def _lines(found: list[migrations.Drift], side: str = "found") -> str:
    words = [(one.object, " ".join((getattr(one, side) or "-").split())) for one in found]
    return " | ".join(map(": ".join, words))


def _copy_of_ours() -> MetaData:
    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    for table in Base.metadata.tables.values():
        table.to_metadata(metadata)
    return metadata


async def _create(settings: Settings, metadata: MetaData) -> None:
    for table in metadata.tables.values():
        for index in table.indexes:
            index.dialect_options["postgresql"]["concurrently"] = False
    async with migration_engine(settings, embedded=False) as engine, engine.begin() as connection:
        await connection.exec_driver_sql("SELECT set_config('search_path', 'public, ext', true)")
        await connection.run_sync(metadata.create_all)


@pytest.mark.parametrize("statement", OURS)
async def test_what_was_done_to_our_tables_is_found(dsn: str, statement: str) -> None:
    await execute(dsn, f"SET allow_system_table_mods = on; {statement}")
    found = await migrations.drift(Settings(dsn=dsn))
    assert _lines(found) == OURS[statement]
    assert all(one.expected != one.found and one.table in statement for one in found)


@pytest.mark.parametrize("statement", HOSTS)
async def test_what_was_done_to_the_tables_of_a_host_is_found(dsn: str, statement: str) -> None:
    settings = Settings(dsn=dsn)
    await _create(settings, _host())
    await execute(dsn, statement)
    assert _lines(await migrations.drift(settings, metadata=_host())) == HOSTS[statement]


@pytest.mark.parametrize("expected", MODELS)
async def test_what_was_changed_in_the_models_is_found(dsn: str, expected: str) -> None:
    metadata = _copy_of_ours()
    MODELS[expected](metadata.tables[VEC])
    found = await migrations.drift(Settings(dsn=dsn), metadata=metadata)
    assert _lines(found, "expected") == expected


@pytest.mark.parametrize("extension_schema", [None, "ext"])
async def test_there_is_none_in_fresh_databases(
    each_empty_dsn: str, extension_schema: str | None
) -> None:
    settings = Settings(dsn=each_empty_dsn)
    await migrations.upgrade(settings, extension_schema=extension_schema)
    await _create(settings, _host())
    assert await migrations.drift(settings) == []
    assert await migrations.drift(settings, metadata=_host()) == []


@pytest.mark.parametrize("dimensions", [1, 384, 2000])
async def test_any_dimension_that_was_chosen_is_expected(empty_dsn: str, dimensions: int) -> None:
    await migrations.upgrade(Settings(dsn=empty_dsn, dimensions=dimensions))
    assert await migrations.drift(Settings(dsn=empty_dsn)) == []
    found = await migrations.drift(Settings(dsn=empty_dsn, dimensions=7))
    assert [str(one) for one in found] == [
        f"{VEC}, column vec: expected vector(7); found vector({dimensions})"
    ]


async def test_a_schema_of_its_own_is_compared_and_no_other(dsn: str) -> None:
    settings = Settings(dsn=dsn, db_schema="Mine", dimensions=3)
    await migrations.upgrade(settings)
    await execute(dsn, f"DROP TABLE {FACTORS}")
    assert await migrations.drift(settings) == []
    await execute(dsn, f'DROP TABLE "Mine".{EDGES}')
    assert _lines(await migrations.drift(settings)) == "table: -"


async def test_models_may_name_schemas_and_repeat_names_in_them(dsn: str) -> None:
    metadata = MetaData()
    key = "id", Integer
    Table("users", metadata, Column(*key, primary_key=True), schema="b")
    Table("users", metadata, Column(*key, primary_key=True), Column("mood", Enum(Mood)), schema="a")
    Table("users", metadata, Column(*key, primary_key=True))
    Table("posts", metadata, Column("user_id", ForeignKey("a.users.id")), schema="b")
    Table("likes", metadata, Column("post", Enum(Mood, schema="b", name="m")), schema="b")
    settings = Settings(dsn=dsn)
    await execute(dsn, "CREATE SCHEMA a", "CREATE SCHEMA b")
    await _create(settings, metadata)
    with pytest.raises(QortexDbError, match="compare them apart"):
        await migrations.drift(settings, metadata=metadata)
    await execute(dsn, "DROP TABLE b.users")
    metadata.remove(metadata.tables["b.users"])
    assert await migrations.drift(settings, metadata=metadata) == []
    await execute(
        dsn, "DROP TABLE users; ALTER TABLE a.users DROP mood; ALTER TYPE b.m ADD VALUE 'x'"
    )
    found = [str(one) for one in await migrations.drift(settings, metadata=metadata)]
    assert found == [
        "a.users, column mood: expected mood ('CALM', 'LOUD'); found nothing",
        "users, table: expected table; found nothing",
        "b.likes, column post: expected m ('CALM', 'LOUD'); found m ('CALM', 'LOUD', 'x')",
    ]


async def test_tables_of_others_owners_and_grants_are_no_drift(dsn: str) -> None:
    await execute(
        dsn,
        "CREATE TABLE host (id int)",
        f"GRANT SELECT ON {VEC} TO PUBLIC",
        f"ALTER TABLE {FACTORS} OWNER TO pg_database_owner",
        f"ALTER TABLE {VEC} DROP created_at",  # the order of columns
        f"ALTER TABLE {VEC} ADD created_at timestamptz DEFAULT now()",
        f"COMMENT ON COLUMN {VEC}.created_at IS 'When the row was inserted'",
        f"CREATE TABLE likes (id text REFERENCES {VEC})",
    )
    assert await migrations.drift(Settings(dsn=dsn)) == []


async def test_what_a_minor_release_keeps_in_the_options_of_a_column_is_no_drift(dsn: str) -> None:
    await execute(
        dsn,
        "SET allow_system_table_mods = on",
        "UPDATE pg_attribute SET attoptions = '{n_distinct=5,pg_attver=26871928}' "
        f"WHERE attrelid = '{VEC}'::regclass AND attname = 'id'",
    )
    [found] = await migrations.drift(Settings(dsn=dsn))
    assert found.found == "text NOT NULL (n_distinct=5)"


SNAPSHOT = "SELECT t::text FROM (SELECT c.xmin, c.ctid, c.* FROM {} c) t ORDER BY 1"
CATALOGUES = ("pg_class", "pg_attribute", "pg_type", "pg_namespace", "pg_constraint", "pg_index")
CATALOGUES += ("pg_attrdef", "pg_description", "pg_depend", "pg_enum", "pg_sequence", "pg_trigger")


async def test_it_leaves_the_catalogue_as_it_was(dsn: str) -> None:
    settings = Settings(dsn=dsn)
    await _create(settings, _host())
    before = [await rows(dsn, SNAPSHOT.format(name)) for name in CATALOGUES]
    await migrations.drift(settings, metadata=_host())
    assert [await rows(dsn, SNAPSHOT.format(name)) for name in CATALOGUES] == before


async def test_it_leaves_a_callers_transaction_as_it_was(dsn: str) -> None:
    settings = Settings(dsn=dsn)
    async with migration_engine(settings, embedded=False) as engine, engine.connect() as connection:
        ask = text(
            f"SELECT (SELECT count(*) FROM {FACTORS}), current_setting('search_path'), "
            "current_setting('lock_timeout'), (SELECT count(*) FROM pg_class "
            "WHERE relpersistence = 't')"
        )
        await connection.execute(text(f"INSERT INTO {FACTORS} VALUES ('a')"))
        before = (await connection.execute(ask)).one()
        assert await connection.run_sync(drift_of, settings) == []
        assert (await connection.execute(ask)).one() == before
        await connection.commit()
    assert await rows(dsn, f"SELECT node_id FROM {FACTORS}") == ["a"]


@pytest.mark.parametrize("mode", ["ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE"])
async def test_it_waits_for_no_writer_and_not_long_for_others(dsn: str, mode: str) -> None:
    holder = await asyncpg.connect(dsn)
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute(f"LOCK TABLE {VEC}, {FACTORS}, {EDGES}, {ARMS} IN {mode} MODE")
    if mode == "ACCESS EXCLUSIVE":  # PostgreSQL 18 prints no expression meanwhile
        with pytest.raises(LockTimeoutError):
            await migrations.drift(Settings(dsn=dsn))
    else:
        async with asyncio.timeout(3):
            assert await migrations.drift(Settings(dsn=dsn)) == []
    await transaction.rollback()
    await holder.close()


async def test_a_role_that_may_only_make_temporary_tables_can_compare(dsn: str) -> None:
    await execute(
        dsn,
        "DO 'BEGIN IF to_regrole(''looker'') IS NULL THEN CREATE ROLE looker LOGIN; END IF; END'",
    )
    theirs = dsn.replace("postgres:@", "looker@")
    assert theirs != dsn
    assert await migrations.drift(Settings(dsn=theirs)) == []
    database = (await rows(dsn, "SELECT quote_ident(current_database())"))[0]
    await execute(dsn, f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC")
    with pytest.raises(QortexDbError, match="needs TEMPORARY") as caught:
        await migrations.drift(Settings(dsn=theirs))
    assert caught.value.sqlstate == "42501"


async def test_where_nothing_may_be_written_it_says_where_to_go(dsn: str) -> None:
    database = (await rows(dsn, "SELECT quote_ident(current_database())"))[0]
    await execute(dsn, f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    with pytest.raises(QortexDbError, match="Connect to a primary") as caught:
        await migrations.drift(Settings(dsn=dsn))
    assert caught.value.sqlstate == "25006"


async def test_what_can_not_be_compared_is_named(dsn: str, empty_dsn: str) -> None:
    with pytest.raises(SchemaVersionError, match=r'"vector" does not exist'):
        await migrations.drift(Settings(dsn=empty_dsn))
    metadata = MetaData()
    Table("notes", metadata, Column("user_id", ForeignKey("users.id")))
    with pytest.raises(InvalidInputError, match=r"'users'.*Declare that table too"):
        await migrations.drift(Settings(dsn=dsn), metadata=metadata)


def test_the_command_prints_each_in_a_line(empty_dsn: str) -> None:
    given = {"PGVECTOR_DSN": empty_dsn, "QORTEX_VEC_DIMENSIONS": "8"}
    code, _, error = run("check", "--drift", **given)
    assert code == 1
    assert "qortex-db upgrade" in error
    assert run("upgrade", **given)[0] == 0
    assert run("check", "--drift", **given) == (0, "The database is what the models say.\n", "")
    asyncio.run(
        execute(
            empty_dsn,
            f"ALTER TABLE {VEC} ADD tags text[] DEFAULT '{{[bold]}}'",
            f"COMMENT ON COLUMN {VEC}.id IS E'two\\nlines'",
        )
    )
    code, printed, error = run("check", "--drift", **given)
    assert code == 1
    assert printed == (
        f"{VEC}, comment on column id: expected 'The caller''s key, 1 to 1,024 bytes of UTF-8'; "
        "found 'two lines'\n"
        f"{VEC}, column tags: expected nothing; found text[] DEFAULT '{{[bold]}}'::text[]\n"
    )
    assert "differs from the models in 2 things" in error
    assert run("check", **given)[0] == 0  # a readiness probe asks for no more


async def test_the_examples_of_its_page_run(dsn384: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGVECTOR_DSN", dsn384)
    blocks = BLOCK.findall((ROOT / "docs/migrations/drift.md").read_text())
    assert blocks
    await program(*blocks)()
