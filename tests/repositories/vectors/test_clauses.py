"""Filters, distances and scores as expressions in statements that a host writes itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import ForeignKey, func, select, text, update
from sqlalchemy.dialects.postgresql import dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column

from qortex_db import (
    HNSW,
    Collection,
    Database,
    InvalidInputError,
    QortexVector,
    VectorMixin,
    VectorSpec,
    vector_column,
)
from qortex_db.types import SparseVector
from support.catalogue import execute

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

RNG = np.random.default_rng(5)
VECTORS = RNG.normal(size=(300, 8)).astype(np.float32)


class Base(DeclarativeBase):
    """A host's own."""


class Author(Base):
    __tablename__ = "authors"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Book(VectorMixin, Base):
    __tablename__ = "books"
    __collection__ = Collection(
        VectorSpec(8, quantization="half", index=HNSW()), namespace="tenant"
    )

    year: Mapped[int | None]
    author_id: Mapped[int | None] = mapped_column(ForeignKey(Author.id))
    words: Mapped[SparseVector | None] = vector_column(
        VectorSpec(100, "inner_product", storage="sparse")
    )


class Film(Base):
    """A stranger's."""

    __tablename__ = "films"
    __collection__ = Collection(VectorSpec(8, "l2", column="emb"), id="number", payload="meta")

    number: Mapped[int] = mapped_column(primary_key=True)
    emb: Mapped[Any] = mapped_column(VECTOR(8))
    meta: Mapped[dict[str, Any]] = mapped_column(QortexVector.payload.type)
    year: Mapped[int]


@pytest.fixture
async def db(empty_dsn: str) -> AsyncIterator[Database]:
    await execute(empty_dsn, "CREATE EXTENSION vector")
    async with Database.connect(empty_dsn) as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(text("INSERT INTO authors VALUES (0, 'Ada'), (1, 'Lem')"))
        for tenant in ("a", "b"):
            await database.collection(Book, namespace=tenant).upsert(
                {
                    "id": f"{tenant}{n}",
                    "embedding": row,
                    "payload": {"n": n, "kind": "odd" if n % 2 else "even"},
                    "document": "red words" if n % 3 else "blue things",
                    "vectors": {"words": {n % 100: 1.0}},
                    "attributes": {"year": 1900 + n, "author_id": n % 2},
                }
                for n, row in enumerate(VECTORS)
            )
        await database.collection(Film).upsert(
            {"id": n, "embedding": row, "payload": {"n": n}, "attributes": {"year": n}}
            for n, row in enumerate(VECTORS)
        )
        yield database


FILTERS: list[Any] = [
    None,
    {},
    {"n": {"$lt": 40}},
    {"kind": "odd", "year": {"$gte": 1950}},
    {"$or": [{"n": {"$in": [1, 2, 500]}}, {"$text": "blue"}]},
    {"$not": {"$id": ["a1", "a2", "b3"]}},
    Book.year > 2_000,
]


async def test_a_clause_matches_what_the_filter_does(db: Database) -> None:
    books = db.collection(Book, namespace="a")
    async with db.unit_of_work() as uow:
        for where in FILTERS:
            for document in (None, {"$contains": "red"}):
                ours = await books.count(where=where, where_document=document)
                clause = books.clause(where, where_document=document)
                mine = select(func.count()).select_from(Book).where(clause)
                assert await uow.session.scalar(mine) == ours, where


async def test_clauses_stand_in_joins_aggregates_and_writes_of_a_hosts(db: Database) -> None:
    mine, theirs = db.collection(Book, namespace="a"), db.collection(Book, namespace="b")
    odd, late = mine.clause({"kind": "odd", "n": {"$lt": 100}}), mine.clause({"n": {"$gte": 90}})
    async with db.unit_of_work() as uow:
        joined = (
            select(Author.name, func.count(), func.max(Book.year))
            .join(Book, Book.author_id == Author.id)
            .where(odd)
            .group_by(Author.name)
        )
        assert (await uow.session.execute(joined)).all() == [("Lem", 50, 1999)]
        both = select(func.count()).select_from(Book).where(odd, late)  # of two, each its values
        assert await uow.session.scalar(both) == 5
        either = select(func.count()).where(odd | theirs.clause({"n": 7})).select_from(Book)
        assert await uow.session.scalar(either) == 51
        done = await uow.session.execute(update(Book).where(late).values(year=1))
        assert done.rowcount == 210
    assert await theirs.count(where={"year": 1}) == 0
    literal = odd.compile(dialect=dialect(), compile_kwargs={"literal_binds": True})
    async with db.engine.begin() as connection:
        found = await connection.exec_driver_sql(f"SELECT count(*) FROM books WHERE {literal}")
        assert found.scalar() == 50


async def test_distances_and_scores_are_those_of_a_search(db: Database) -> None:
    books, films = db.collection(Book, namespace="a"), db.collection(Film)
    async with db.unit_of_work() as uow:
        for collection, model, key in ((books, Book, Book.id), (films, Film, Film.number)):
            hits = await collection.search(VECTORS[4], limit=20, where={"n": {"$gt": 10}})
            distance, score = collection.distance(VECTORS[4]), collection.score([*VECTORS[4]])
            mine = (
                select(key, score)
                .where(collection.clause({"n": {"$gt": 10}}))
                .order_by(distance)
                .limit(20)
            )
            rows = (await uow.session.execute(mine)).all()
            assert [row[0] for row in rows] == [hit.id for hit in hits]
            assert [row[1] for row in rows] == pytest.approx([hit.score for hit in hits])
            nearest = select(model).order_by(distance).limit(1)
            assert (await uow.session.scalar(nearest)) is not None
        words = {7: 2.0}
        hits = await books.search(SparseVector(words, 100), using="words", limit=2)
        score = books.score(words, using="words")
        mine = select(Book.id, score).where(books.clause()).order_by(score.desc(), Book.id).limit(2)
        assert (await uow.session.execute(mine)).all() == [(hit.id, hit.score) for hit in hits]


async def test_an_approximate_distance_is_what_the_index_is_on(db: Database) -> None:
    books = db.collection(Book, namespace="a")
    async with db.engine.begin() as connection:
        await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        await connection.exec_driver_sql("SET LOCAL enable_sort = off")
        for approximate in (True, False):
            distance = books.distance(VECTORS[4], approximate=approximate)
            mine = select(Book.id, distance).order_by(distance).limit(5)
            sql = mine.compile(dialect=dialect(), compile_kwargs={"literal_binds": True})
            plan = (await connection.exec_driver_sql(f"EXPLAIN {sql}")).scalars().all()
            assert ("ix_books_vec" in "\n".join(plan)) is approximate
            rows = (await connection.execute(mine)).all()
            assert rows[0][1] == pytest.approx(0, abs=1e-3)


async def test_what_is_no_filter_or_no_vector_is_refused_at_once(db: Database) -> None:
    books = db.collection(Book, namespace="a")
    for call, says in (
        (lambda: books.clause({"n": {"$no": 1}}), "no operator"),
        (lambda: books.clause(aliased(Book).year > 1), "table or alias"),
        (lambda: books.distance([1.0]), "8"),
        (lambda: books.distance([0.0] * 8), "no direction|zero"),
        (lambda: books.distance(VECTORS[0], using="none"), "no vector of that name"),
        (lambda: books.score(VECTORS[0], approximate=1), "pass True or False"),
    ):
        with pytest.raises(InvalidInputError, match=says):
            call()
