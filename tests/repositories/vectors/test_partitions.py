"""Partitioned collections: where rows go, what is read, and how searches use each one's indexes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import DDL, event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import (
    Collection,
    ConflictError,
    Database,
    Partitions,
    VectorMixin,
    VectorSpec,
)
from qortex_db.types import Embedding
from support.catalogue import execute, rows
from support.roundtrips import counted

if TYPE_CHECKING:
    from qortex_db.repositories import VectorRepository

DIMENSIONS = 384
RNG = np.random.default_rng(5)
TENANTS = {"namespace": "tenant", "namespace_in_key": True}


class Base(DeclarativeBase):
    """A host's own."""


class Hashed(VectorMixin, Base):
    __tablename__ = "hashed"
    __collection__ = Collection(VectorSpec(DIMENSIONS), partitions=Partitions(4))


class Spaces(VectorMixin, Base):
    __tablename__ = "spaces"
    __collection__ = Collection(VectorSpec(DIMENSIONS), partitions=Partitions(4), **TENANTS)  # type: ignore[arg-type]


class Listed(VectorMixin, Base):
    __tablename__ = "listed"
    __collection__ = Collection(
        VectorSpec(DIMENSIONS),
        partitions=Partitions(values={"one": ["a", "b"], "other": ["c"]}),
        **TENANTS,  # type: ignore[arg-type]
    )


class Chunk(Base):
    """A host's own, by a part of its key: what is near to a query may all be of one document."""

    __tablename__ = "chunks"
    __table_args__ = {"postgresql_partition_by": "HASH (doc)"}  # noqa: RUF012 - SQLAlchemy's
    __collection__ = Collection(VectorSpec(DIMENSIONS, column="emb"), id=("doc", "part"))

    doc: Mapped[int] = mapped_column(primary_key=True)
    part: Mapped[int] = mapped_column(primary_key=True)
    emb: Mapped[Any] = mapped_column(Embedding(DIMENSIONS))


for remainder in range(4):
    bounds = f"FOR VALUES WITH (MODULUS 4, REMAINDER {remainder})"
    statement = f"CREATE TABLE chunks_{remainder} PARTITION OF chunks {bounds}"
    event.listen(Chunk.__table__, "after_create", DDL(statement))


def clustered(count: int) -> Any:
    centres = np.random.default_rng(1).normal(size=(100, DIMENSIONS))
    return (
        centres[RNG.integers(0, 100, count)] + RNG.normal(size=(count, DIMENSIONS)) * 0.7
    ).astype(np.float32)


async def made(dsn: str) -> None:
    async with Database.connect(dsn) as db, db.engine.begin() as connection:
        await connection.execute(text("CREATE EXTENSION vector"))
        await connection.run_sync(Base.metadata.create_all)


def records(vectors: Any, prefix: str = "r") -> list[dict[str, Any]]:
    return [
        {"id": f"{prefix}{i:05}", "embedding": row, "payload": {"half": i % 2, "n": i % 100}}
        for i, row in enumerate(vectors)
    ]


async def test_rows_lie_where_their_key_says_and_only_there_are_they_looked_for(
    empty_dsn: str,
) -> None:
    await made(empty_dsn)
    vectors = clustered(400)  # cut into parts
    where = "SELECT tableoid::regclass || ' ' || count(*) FROM {} GROUP BY tableoid ORDER BY 1"
    async with Database.connect(empty_dsn) as db:
        for lane in (db, None):
            async with db.unit_of_work() as uow:
                hashed: VectorRepository = (lane or uow).collection(Hashed)
                assert await hashed.upsert(records(vectors)[::-1]) == 400
                assert await hashed.upsert(records(vectors)) == 0
                told = await hashed.insert(records(clustered(401)))
                assert (told.new, len(told.existing)) == (["r00400"], 400)
                changes = [{"id": one["id"], "payload": {"n": 1}} for one in records(vectors)]
                assert await hashed.update_many(changes) == 400
                assert {hit.id for hit in await hashed.search(vectors[7], limit=1)} == {"r00007"}
                hits = await hashed.search(vectors[7], limit=5, where={"n": 1})
                right = await hashed.search(vectors[7], limit=5, exact=True)
                assert [hit.id for hit in hits] == [hit.id for hit in right]
                if lane is None:
                    assert await hashed.delete_all() == 401
                else:
                    found = await rows(empty_dsn, where.format("hashed"))
                    assert [one.split()[0] for one in found] == [f"hashed_{i}" for i in range(4)]
                    assert await hashed.delete([f"r{i:05}" for i in range(402)]) == 401
        for name in ("a", "c"):
            listed = db.collection(Listed, namespace=name)
            assert await listed.upsert(records(vectors)) == 400
            plan = await listed.explain(vectors[0], where={"half": 1})
            # A sample, a few rows by their places, is of the whole table.
            read = " ".join(
                one for one in plan.text.splitlines() if "ctid" not in one and "Tid" not in one
            )
            assert [part for part in ("one", "other") if f"listed_{part}" in read] == [
                {"a": "one", "c": "other"}[name]
            ]
            assert {hit.id for hit in await listed.search(vectors[7], limit=1)} == {"r00007"}
            await db.collection(Spaces, namespace=name).upsert(records(vectors[:9]))
        assert await rows(empty_dsn, where.format("listed")) == [
            "listed_one 400",
            "listed_other 400",
        ]
        plan = await db.collection(Spaces, namespace="a").explain(vectors[0], exact=True)
        assert sum(f"spaces_{i}" in plan.text for i in range(4)) == 1
        with pytest.raises(ConflictError, match="no partition"):
            await db.collection(Listed, namespace="nobody").upsert(records(vectors[:2]))


async def test_each_index_is_asked_for_less_where_chance_puts_rows_into_partitions(
    empty_dsn: str,
) -> None:
    await made(empty_dsn)
    sent: list[Any] = []
    async with Database.connect(empty_dsn) as db:
        event.listen(
            db.engine.sync_engine, "before_cursor_execute", lambda *call: sent.append(call)
        )
        hashed, chunks = db.collection(Hashed), db.collection(Chunk)
        listed = db.collection(Listed, namespace="a")
        query = clustered(1)[0]
        asked: list[tuple[str, Any, dict[str, Any]]] = [
            ("20", hashed, {}),
            ("50", hashed, {"limit": 100}),
            ("100", hashed, {"where": {"n": 1}}),
            ("7", hashed, {"ef_search": 7}),
            ("100", chunks, {"limit": 100}),
            ("100", listed, {"limit": 100, "ef_search": 100}),
            ("400", listed, {"where": {"n": 1}}),
        ]
        for ef_search, vectors, options in asked:
            await vectors.search(query, **options)
            texts = [one for one in sent[-1][3] if isinstance(one, str) and one.isdigit()]
            assert texts == [ef_search], (vectors, options)


@pytest.mark.faults
async def test_a_search_is_one_statement_that_merges_what_each_partitions_index_finds(
    empty_dsn: str,
) -> None:
    await made(empty_dsn)
    vectors, queries = clustered(20_000), clustered(20)
    await execute(empty_dsn, "DROP INDEX ix_hashed_vec")
    async with Database.connect(empty_dsn) as db:
        hashed: VectorRepository = db.collection(Hashed)
        await hashed.ingest(records(vectors))
    await execute(
        empty_dsn,
        "SET maintenance_work_mem = '256MB'; CREATE INDEX ix_hashed_vec ON hashed USING hnsw "
        "(vec vector_cosine_ops)",
        "ANALYZE hashed",
    )
    async with counted(empty_dsn) as trips, Database.connect(trips.dsn) as db:
        hashed = db.collection(Hashed)
        for options in ({}, {"where": {"n": 7}}, {"where": {"half": 1}}, {"limit": 100}):
            of_filter = {k: v for k, v in options.items() if k != "limit"}
            found = right = 0
            for query in queries:
                best = await hashed.search(query, exact=True, **options)  # type: ignore[arg-type]
                hits = await hashed.search(query, **options)  # type: ignore[arg-type]
                async with trips.expect(1):
                    hits = await hashed.search(query, **options)  # type: ignore[arg-type]
                assert [hit.score for hit in hits] == sorted((h.score for h in hits), reverse=True)
                found += len({hit.id for hit in hits} & {hit.id for hit in best})
                right += len(best)
                async with db.unit_of_work() as uow:
                    again = await uow.collection(Hashed).search(query, **options)  # type: ignore[arg-type]
                    assert {hit.id for hit in again} == {hit.id for hit in hits}
            assert found / right > 0.95, options
            plan = await hashed.explain(queries[0], **options)  # type: ignore[arg-type]
            ran = [line for line in plan.text.splitlines() if "not run" not in line]
            assert not [line for line in ran if "Seq Scan, hashed" in line], options
            assert not plan.compared_every_row
            wanted = "payload" if of_filter == {"where": {"n": 7}} else "vec"
            assert set(plan.indexes) == {f"hashed_{i}_{wanted}_idx" for i in range(4)}, options
            merged = [line for line in ran if "Merge Append" in line]
            assert bool(merged) is (wanted == "vec"), options
            assert plan.rows_visited < 2_500, options  # not even looked for, by the sample

        assert (await hashed.recommend_index()).method == "hnsw"  # of the rows of all partitions
        # So many of each partition, which shows that the setting reaches each scan.
        never: dict[str, Any] = {"iterative_scan": "off", "complete": "never"}
        for ef_search, count in ((1, 4), (2, 8), (100, 10)):
            few = await hashed.search(queries[0], ef_search=ef_search, **never)
            assert len(few) == count
        async with db.unit_of_work() as uow:
            setting = text("SELECT current_setting('hnsw.ef_search')")
            assert len(await uow.collection(Hashed).search(queries[0], ef_search=2, **never)) == 8
            assert await uow.session.scalar(setting) == "40"
