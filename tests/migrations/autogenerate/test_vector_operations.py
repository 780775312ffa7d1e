"""Revisions with vector and payload indexes: written by autogenerate, run, run again, undone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import MetaData, Text, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, mapped_column

from qortex_db import (
    HNSW,
    Collection,
    InvalidInputError,
    IVFFlat,
    QortexDbError,
    QortexVector,
    VectorMixin,
    VectorSpec,
    migrations,
    vector_column,
    vector_index,
)
from qortex_db.filters import payload_index
from support.catalogue import execute, rows
from support.hosting import Project
from support.revisions import autogenerate, connected, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection, Table

pytestmark = pytest.mark.slow

NOW = "concurrently=False"
COSINE = "opclass='vector_cosine_ops', ef_construction=64"
EXTENSION = "CREATE EXTENSION vector"
FILL = """
INSERT INTO notes (id, vec, payload)
SELECT i::text, ARRAY[i, 1, -i]::vector, jsonb_build_object('year', i)
FROM generate_series(1, 500) i
"""


def model(
    collection: Collection | None = None,
    change: Callable[[Table], object] = lambda _: None,
    *,
    schema: str | None = None,
    **columns: Any,
) -> MetaData:
    """A host's models: a collection, and a table that is none."""
    base: Any = type("B", (DeclarativeBase,), {"metadata": MetaData(schema=schema)})
    space = {"__tablename__": "notes", "__collection__": collection or Collection(VectorSpec(3))}
    note: Any = type("Note", (VectorMixin, base), space | columns)
    change(note.__table__)
    return note.metadata


INDEXES = """
SELECT c.relname || ' ' || pg_get_indexdef(i.indexrelid) || ' ' || i.indisvalid
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
WHERE t.relname = 'notes' AND NOT i.indisprimary"""


async def indexes(dsn: str) -> set[str]:
    return set(await rows(dsn, INDEXES))


async def have(dsn: str, metadata: MetaData, *, schema: str | None = None) -> None:
    """A database that a revision of autogenerate's made, with rows."""
    await execute(dsn, EXTENSION)
    options = {"include_schemas": True} if schema else {}
    await run(dsn, await autogenerate(dsn, metadata, **options))
    await execute(dsn, FILL if schema is None else f"SET search_path = {schema}, public; {FILL}")


OLD = Collection(VectorSpec(3))


def hnsw(**options: Any) -> Collection:
    return Collection(VectorSpec(3, index=HNSW(**options)))


# A new table


async def test_a_new_collection_is_one_revision_with_named_operations_and_its_imports(
    empty_dsn: str,
) -> None:
    metadata = model(change=lambda t: payload_index(t, "author.name", "keyword"))
    await execute(empty_dsn, EXTENSION)
    revision = await autogenerate(empty_dsn, metadata)
    payload = "op.create_payload_index('ix_notes_payload"
    assert revision.lines[1:] == [
        f"{payload}_author_name_keyword_737efb46', 'notes', 'author.name', 'keyword', {NOW})",
        f"{payload}_containment', 'notes', '', 'containment', {NOW})",
        f"{payload}_document', 'notes', '', 'document', {NOW})",
        f"op.create_vector_index('ix_notes_vec', 'notes', 'vec', {COSINE}, m=16, {NOW})",
    ]
    assert "sa.Column('vec', qortex_db.types.Embedding(3), nullable=True)" in revision.upgrade
    assert "import qortex_db.types" in revision.imports
    assert "VectorSpec" not in revision.upgrade
    await run(empty_dsn, revision)
    assert (await autogenerate(empty_dsn, metadata)).differences == []
    await run(empty_dsn, revision, "downgrade")
    assert await rows(empty_dsn, "SELECT to_regclass('notes') IS NULL") == [True]


async def test_a_dropped_collection_comes_back_as_it_was(empty_dsn: str) -> None:
    metadata = model(
        Collection(VectorSpec(3, "l2", quantization="binary"), language="english"),
        lambda t: payload_index(t, "year", "integer"),
    )
    await have(empty_dsn, metadata)
    before = await indexes(empty_dsn)
    revision = await autogenerate(empty_dsn, MetaData())
    assert "import pgvector.sqlalchemy" in revision.imports
    await run(empty_dsn, revision)
    await run(empty_dsn, revision, "downgrade")
    assert await indexes(empty_dsn) == before


async def test_a_first_revision_may_make_the_extension_that_is_not_there_yet(
    empty_dsn: str,
) -> None:
    revision = await autogenerate(empty_dsn, model())
    revision.upgrade = f"op.execute('{EXTENSION}')\n{revision.upgrade}"
    await run(empty_dsn, revision)
    assert (await autogenerate(empty_dsn, model())).differences == []


# Changes


def partial(where: str) -> Callable[[Table], object]:
    return lambda table: vector_index(table, index=HNSW(where=where), name="ix_notes_big")


def tenants(*large: str) -> Collection:
    return Collection(VectorSpec(3), namespace="tenant", large_namespaces=large)


CHANGES: dict[str, tuple[MetaData, MetaData, list[str]]] = {
    "m": (model(), model(hnsw(m=20)), ["vec"]),
    "ef_construction": (model(), model(hnsw(ef_construction=70)), ["vec"]),
    "metric": (model(), model(Collection(VectorSpec(3, "l2"))), ["vec"]),
    "quantization": (model(), model(Collection(VectorSpec(3, quantization="half"))), ["vec"]),
    "another quantization": (
        model(Collection(VectorSpec(3, quantization="half"))),
        model(Collection(VectorSpec(3, quantization="binary"))),
        ["vec"],
    ),
    "method": (model(), model(Collection(VectorSpec(3, index=IVFFlat(lists=5)))), ["vec"]),
    "lists": (
        model(Collection(VectorSpec(3, index=IVFFlat(lists=5)))),
        model(Collection(VectorSpec(3, index=IVFFlat(lists=6)))),
        ["vec"],
    ),
    "predicate": (model(change=partial("id < 'a:b'")), model(change=partial("id < 'c'")), ["big"]),
    "language": (
        model(),
        model(Collection(VectorSpec(3), language="english")),
        ["payload_document", "payload_document_english"],
    ),
    "a payload index more": (
        model(),
        model(change=lambda t: payload_index(t, "year", "integer")),
        ["payload_year_integer"],
    ),
    "a payload index less": (
        model(change=lambda t: payload_index(t, "a.b", "text", language="german")),
        model(),
        ["payload_a_b_text_german_"],
    ),
    "a vector index less": (model(change=partial("id < 'c'")), model(), ["big"]),
    "no index at all": (
        model(),
        model(Collection(VectorSpec(3, index=None), language=None, payload_index=False)),
        ["payload_containment", "payload_document", "vec"],
    ),
    "large namespaces": (
        model(tenants()),
        model(tenants("it's", "b")),
        ["vec_b", "vec_"],
    ),
    "path": (
        model(change=lambda t: payload_index(t, "a", "float", name="ix_notes_payload_x")),
        model(change=lambda t: payload_index(t, "b", "float", name="ix_notes_payload_x")),
        ["payload_x"],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_is_seen_written_run_on_rows_and_undone(empty_dsn: str, change: str) -> None:
    old, new, named = CHANGES[change]
    await have(empty_dsn, old)
    assert (await autogenerate(empty_dsn, old)).differences == []
    before = await indexes(empty_dsn)
    revision = await autogenerate(empty_dsn, new)
    touched = {line.split("'")[1].removeprefix("ix_notes_") for line in revision.lines}
    assert all(any(name.startswith(start) for start in named) for name in touched), touched
    assert len(touched) == len(named)
    assert all("_index(" in line and "concurrently" not in line for line in revision.lines)
    await run(empty_dsn, revision)
    assert (await autogenerate(empty_dsn, new)).differences == []
    assert all(line.endswith(" true") for line in await indexes(empty_dsn))
    await run(empty_dsn, revision, "downgrade")
    assert await indexes(empty_dsn) == before


async def test_a_vector_more_comes_with_its_column_in_one_transaction(empty_dsn: str) -> None:
    await have(empty_dsn, model())
    before = await indexes(empty_dsn)
    new = model(title=vector_column(VectorSpec(2, "l1", storage="half")))
    revision = await autogenerate(empty_dsn, new)
    assert [line.split("(")[0] for line in revision.lines] == [
        "op.add_column",
        "op.create_vector_index",
    ]
    assert "opclass='halfvec_l1_ops'" in revision.lines[1]
    assert revision.lines[1].endswith("concurrently=False)")
    await run(empty_dsn, revision)
    assert (await autogenerate(empty_dsn, new)).differences == []
    await run(empty_dsn, revision, "downgrade")
    assert await indexes(empty_dsn) == before


async def test_stored_words_come_with_their_column_and_index(empty_dsn: str) -> None:
    await have(empty_dsn, model())
    before = await indexes(empty_dsn)
    for text_of, declared in (("english", "english"), ("pg_catalog.german", "german")):
        new = model(Collection(VectorSpec(3), text=text_of))
        revision = await autogenerate(empty_dsn, new)
        assert [line.split("(")[0] for line in revision.lines] == [
            "op.drop_payload_index",
            "op.add_column",
            "op.create_index",
        ]
        assert f"'{text_of}'::regconfig" in revision.upgrade.replace("\\'", "'")
        await run(empty_dsn, revision)
        if text_of == declared:
            assert (await autogenerate(empty_dsn, new)).differences == []
        await execute(empty_dsn, "UPDATE notes SET document = '/etc/nginx.conf' WHERE id = '1'")
        words = "SELECT document_words::text FROM notes WHERE document IS NOT NULL"
        assert await rows(empty_dsn, words) == ["'conf':3 'etc':1 'nginx':2"]
        await run(empty_dsn, revision, "downgrade")
        assert await indexes(empty_dsn) == before


async def test_other_dimensions_and_storage_alter_the_column_between_drop_and_create(
    empty_dsn: str,
) -> None:
    await have(empty_dsn, model())
    await execute(empty_dsn, "UPDATE notes SET vec = NULL")
    new = model(Collection(VectorSpec(5, storage="half")))
    revision = await autogenerate(empty_dsn, new)
    assert [line.split("(")[0] for line in revision.lines] == [
        "op.drop_vector_index",
        "op.alter_column",
        "op.create_vector_index",
    ]
    await run(empty_dsn, revision)
    assert (await autogenerate(empty_dsn, new)).differences == []


async def test_what_commits_by_itself_comes_before_what_can_not_be_run_again(
    empty_dsn: str,
) -> None:
    await have(empty_dsn, model())
    revision = await autogenerate(empty_dsn, model(hnsw(m=20), extra=mapped_column(Text)))
    assert [line.split("(")[0] for line in revision.lines] == [
        "op.drop_vector_index",
        "op.create_vector_index",
        "op.add_column",
    ]


async def test_indexes_in_another_schema_are_named_with_it(empty_dsn: str) -> None:
    await execute(empty_dsn, "CREATE SCHEMA tenant")
    await have(empty_dsn, model(schema="tenant"), schema="tenant")
    new = model(hnsw(m=20), schema="tenant")
    revision = await autogenerate(empty_dsn, new, include_schemas=True)
    assert revision.lines == [
        "op.drop_vector_index('ix_notes_vec', 'notes', schema='tenant')",
        f"op.create_vector_index('ix_notes_vec', 'notes', 'vec', {COSINE}, m=20, schema='tenant')",
    ]
    await run(empty_dsn, revision)
    assert (await autogenerate(empty_dsn, new, include_schemas=True)).differences == []


# Drift


BY_HAND = {
    "dropped": "DROP INDEX ix_notes_vec",
    "option": "ALTER INDEX ix_notes_vec SET (m = 8)",
    "operator class": "CREATE INDEX ix_notes_vec ON notes USING hnsw (vec vector_l2_ops)",
    "method": "CREATE INDEX ix_notes_vec ON notes USING ivfflat (vec vector_cosine_ops)",
    "predicate": "CREATE INDEX ix_notes_vec ON notes USING hnsw (vec vector_cosine_ops) "
    "WITH (m = 16, ef_construction = 64) WHERE id > 'a'",
    "more": "CREATE INDEX by_hand ON notes USING hnsw (vec vector_l2_ops)",
    "invalid": "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_notes_vec'::regclass",
    "operator class of the payload": "CREATE INDEX ix_notes_payload_containment "
    "ON notes USING gin (payload)",
    "expression": "CREATE INDEX ix_notes_payload_document "
    "ON notes USING gin (to_tsvector('english', document))",
}


@pytest.mark.parametrize("statement", BY_HAND.values(), ids=BY_HAND)
async def test_what_was_changed_by_hand_is_seen_and_mended(empty_dsn: str, statement: str) -> None:
    await have(empty_dsn, model())
    before = await indexes(empty_dsn)
    if statement.startswith("CREATE INDEX ix"):
        await execute(empty_dsn, f"DROP INDEX {statement.split()[2]}")
    await execute(empty_dsn, statement)
    revision = await autogenerate(empty_dsn, model())
    assert revision.differences
    await run(empty_dsn, revision)
    assert await indexes(empty_dsn) == before


async def test_an_index_made_by_hand_with_pgvectors_defaults_is_no_difference(
    empty_dsn: str,
) -> None:
    await have(empty_dsn, model())
    by_hand = "CREATE INDEX ix_notes_vec ON notes USING hnsw (vec vector_cosine_ops)"
    await execute(empty_dsn, "DROP INDEX ix_notes_vec", by_hand)
    assert (await autogenerate(empty_dsn, model())).differences == []


async def test_a_hosts_filter_is_asked_for_each_index(empty_dsn: str) -> None:
    await have(empty_dsn, model())

    def leave(_object: object, name: str, kind: str, *_: object) -> bool:
        return kind != "index" or name != "ix_notes_vec"

    revision = await autogenerate(empty_dsn, model(hnsw(m=20)), include_object=leave)
    assert revision.differences == []


async def test_our_own_tables_are_not_compared(dsn: str) -> None:
    await execute(dsn, "DROP INDEX ix_qortex_vectors_vec")
    metadata = MetaData()
    QortexVector.__table__.to_metadata(metadata)  # type: ignore[attr-defined]
    revision = await autogenerate(dsn, metadata, include_object=migrations.include_object)
    assert not [line for line in revision.lines if "vector_index" in line]


async def test_a_role_without_temporary_is_told_what_it_needs(empty_dsn: str) -> None:
    await have(empty_dsn, model())
    name = (await rows(empty_dsn, "SELECT current_database()"))[0]
    await execute(
        empty_dsn,
        f'REVOKE TEMPORARY ON DATABASE "{name}" FROM PUBLIC',
        "DROP ROLE IF EXISTS reader",
        "CREATE ROLE reader LOGIN",
        "GRANT SELECT ON notes TO reader",
    )
    as_reader = empty_dsn.replace("postgres:@", "reader:@")
    try:
        with pytest.raises(QortexDbError, match="TEMPORARY"):
            await autogenerate(as_reader, model())
    finally:
        await execute(empty_dsn, "DROP OWNED BY reader", "DROP ROLE reader")


# Operations by hand


async def perform(dsn: str, *calls: Callable[[Any], object]) -> None:
    def work(connection: Connection) -> None:
        context = MigrationContext.configure(connection)
        with Operations.context(context) as operations, context.begin_transaction():
            for call in calls:
                call(operations)

    async with connected(dsn) as connection:
        await connection.run_sync(work)


async def test_a_build_that_failed_is_run_again_over_what_it_left(empty_dsn: str) -> None:
    await have(empty_dsn, model(Collection(VectorSpec(3, index=None))))
    # A row that the predicate can't be computed for makes the build fail halfway.
    where = "1 / (length(id) - 1) >= 0"

    def build(op: Any) -> None:
        op.create_vector_index("ix_notes_vec", "notes", "vec", where=where)

    with pytest.raises(DBAPIError, match="division by zero"):
        await perform(empty_dsn, build)
    (left,) = [line for line in await indexes(empty_dsn) if "ix_notes_vec" in line]
    assert left.endswith("false")
    await execute(empty_dsn, "DELETE FROM notes WHERE length(id) = 1")
    await perform(empty_dsn, build)
    (made,) = [line for line in await indexes(empty_dsn) if "ix_notes_vec" in line]
    assert made.endswith("true")
    await perform(empty_dsn, build)  # what is there stays


async def test_a_build_waits_for_older_transactions_and_keeps_nobody_waiting(
    empty_dsn: str,
) -> None:
    await have(empty_dsn, model(Collection(VectorSpec(3, index=None))))
    other = await asyncpg.connect(empty_dsn)
    older = other.transaction()
    await older.start()
    await other.execute("UPDATE notes SET document = 'x' WHERE id = '1'")

    def build(op: Any) -> None:
        op.execute("SET lock_timeout = '200ms'")
        op.execute("SET statement_timeout = '300ms'")
        op.create_vector_index("ix_notes_vec", "notes", "vec")
        seen.append(op.get_bind().scalar(text("SHOW lock_timeout")))

    seen: list[str] = []
    building = asyncio.create_task(perform(empty_dsn, build))
    await asyncio.sleep(1)
    assert not building.done()
    await execute(empty_dsn, "UPDATE notes SET document = 'y' WHERE id = '2'")
    await older.commit()
    await building
    await other.close()
    assert seen == ["200ms"]


async def test_operations_take_options_by_name_and_refuse_other_methods(empty_dsn: str) -> None:
    await have(empty_dsn, model(Collection(VectorSpec(3, index=None), payload_index=False)))
    await perform(
        empty_dsn,
        lambda op: op.create_vector_index(
            "v", "notes", "(vec::halfvec(3))", opclass="halfvec_l2_ops", method="ivfflat", lists=2
        ),
        lambda op: op.create_payload_index("p", "notes"),
        lambda op: op.create_payload_index("y", "notes", "a.b", "keyword"),
        lambda op: op.create_payload_index("e", "notes", on="(payload ->> 'x:y')"),
    )
    found = await indexes(empty_dsn)
    (made,) = [line for line in found if line.startswith("v ")]
    assert "USING ivfflat (((vec)::halfvec(3)) halfvec_l2_ops) WITH (lists='2')" in made
    assert {line.split()[0] for line in found} >= {"v", "p", "y", "e"}
    await perform(empty_dsn, lambda op: op.drop_vector_index("v", "notes"))
    await perform(empty_dsn, *[lambda op, n=n: op.drop_payload_index(n, "notes") for n in "pye"])
    assert {line.split()[0] for line in await indexes(empty_dsn)} == {"ix_notes_payload_document"}
    with pytest.raises(InvalidInputError, match="hnsw, ivfflat"):
        await perform(
            empty_dsn, lambda op: op.create_vector_index("v", "notes", "vec", method="gist")
        )


# A host's project, by Alembic's own command line

MODELS = """
import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import HNSW, Collection, VectorMixin, VectorSpec, vector_column


class Base(DeclarativeBase):
    pass


class Note(VectorMixin, Base):
    __tablename__ = "notes"
    __collection__ = Collection(VectorSpec(3, index=HNSW(m=8)))

    author: Mapped[str | None]
    title: Mapped[NDArray[np.float32] | None] = vector_column(VectorSpec(2, storage="half"))
"""


async def test_a_host_with_stock_templates_adds_alters_and_drops_a_collection(
    tmp_path: Path, empty_dsn: str
) -> None:
    await execute(empty_dsn, EXTENSION)
    project = await Project(tmp_path, empty_dsn, "same_schema").start()
    project.edit("alembic/script.py.mako", "import pgvector.sqlalchemy\n", "")
    project.write("myapp/models.py", MODELS)
    await project.succeed("alembic revision --autogenerate -m first")
    await project.succeed("alembic upgrade head")
    await project.succeed("alembic check")
    await execute(empty_dsn, "INSERT INTO notes (id, vec) VALUES ('a', '[1,2,3]')")
    first = await indexes(empty_dsn)
    project.write("myapp/models.py", MODELS.replace("m=8", "m=9").replace("author", "writer"))
    done = await project.run("alembic", "check")
    assert done.code != 0
    assert "remove_vector_index" in done.out
    await project.succeed("alembic revision --autogenerate -m second")
    await project.succeed("alembic upgrade head")
    await project.succeed("alembic check")
    sql = await project.succeed("alembic upgrade head --sql")
    assert "CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_notes_vec" in sql
    await project.succeed("alembic downgrade -1")
    assert await indexes(empty_dsn) == first
    await project.succeed("alembic upgrade head")
    project.write("myapp/models.py", MODELS.partition("class Note")[0])
    await project.succeed("alembic revision --autogenerate -m third")
    await project.succeed("alembic upgrade head")
    await project.succeed("alembic downgrade base")
