"""Records without ids: the server, or the model, makes their keys, told in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from sqlalchemy import DDL, BigInteger, Identity, Integer, Sequence, event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import (
    Collection,
    ConflictError,
    Database,
    InvalidInputError,
    VectorMixin,
    VectorRecord,
    VectorSpec,
)
from qortex_db.types import Embedding
from support.roundtrips import counted

if TYPE_CHECKING:
    from qortex_db.repositories import VectorRepository
    from qortex_db.uow import Repositories

VECTORS = np.random.default_rng(3).normal(size=(600, 384)).astype(np.float32)  # four parts


class Base(DeclarativeBase):
    """A host's own."""


class Row:
    """What the tables have beside their keys."""

    __collection__ = Collection(VectorSpec(384, column="emb", index=None), document="body")

    emb: Mapped[Any | None] = mapped_column(Embedding(384))
    body: Mapped[str | None]
    number: Mapped[int | None] = mapped_column(server_default="-1")
    tenant: Mapped[int | None]


class Always(Row, Base):
    __tablename__ = "always"
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)


class ByDefault(Row, Base):
    __tablename__ = "by_default"
    key: Mapped[int] = mapped_column(Identity(start=-3, minvalue=-9), primary_key=True)


class Serial(Row, Base):
    """In partitions, of which each takes some of the rows."""

    __tablename__ = "serial"
    __table_args__ = {"postgresql_partition_by": "HASH (id)"}  # noqa: RUF012 - SQLAlchemy's
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)


for part in range(3):
    made = f"CREATE TABLE serial_{part} PARTITION OF serial FOR VALUES WITH "
    made += f"(MODULUS 3, REMAINDER {part})"
    event.listen(Serial.__table__, "after_create", DDL(made))


class Numbered(Row, Base):
    __tablename__ = "numbered"
    id: Mapped[int] = mapped_column(Integer, Sequence("numbers"), primary_key=True)


class OfServer(Row, Base):
    __tablename__ = "of_server"
    id: Mapped[UUID] = mapped_column(server_default=text("gen_random_uuid()"), primary_key=True)


class OfTexts(Row, Base):
    __tablename__ = "of_texts"
    id: Mapped[str] = mapped_column(server_default=text("gen_random_uuid()"), primary_key=True)


class OfModel(Row, Base):
    __tablename__ = "of_model"
    id: Mapped[UUID] = mapped_column(default=uuid4, primary_key=True)


class OfTenants(Row, Base):
    __tablename__ = "of_tenants"
    __collection__ = Collection(
        VectorSpec(384, column="emb", index=None), document="body", namespace="tenant"
    )
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)


class Nobodys(Row, Base):
    __tablename__ = "nobodys"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Pair(Row, Base):
    __tablename__ = "pair"
    __collection__ = Collection(VectorSpec(384, column="emb", index=None), id=("a", "b"))
    a: Mapped[int] = mapped_column(primary_key=True)
    b: Mapped[int] = mapped_column(primary_key=True)


class Texts(VectorMixin, Base):
    __tablename__ = "texts"
    __collection__ = Collection(VectorSpec(384, index=None))


MADE: dict[type[Any], type[Any]] = {
    Always: int,
    ByDefault: int,
    Serial: int,
    Numbered: int,
    OfServer: UUID,
    OfTexts: str,
    OfModel: UUID,
    OfTenants: int,
}


def records() -> list[Any]:
    """In no order that a key has; of some a row says nothing of its own number."""
    given: list[Any] = []
    for number in np.random.default_rng(9).permutation(600).tolist():
        one: dict[str, Any] = {"embedding": VECTORS[number], "document": str(number)}
        if number % 3:
            one["attributes"] = {"number": number}
        given.append(one)
    given[5] = {**given[5], "id": None}
    given[6] = VectorRecord(None, given[6]["embedding"], document=given[6]["document"])
    return given


async def check(repositories: Repositories, model: type[Any]) -> None:
    space = {"namespace": 7} if model is OfTenants else {}
    rows: VectorRepository[Any] = repositories.collection(model, **space)
    given = records()
    told = await rows.insert(iter(given))
    assert (len(told.new), len(set(told.new)), told.existing) == (600, 600, [])
    assert all(isinstance(key, MADE[model]) for key in told.new)
    found = await rows.get(told.new)
    for key, record in zip(told.new, given, strict=True):
        stored = found[key]
        document = record.document if isinstance(record, VectorRecord) else record["document"]
        assert stored.document == document
        assert stored.embedding is not None
        assert stored.attributes is not None
        np.testing.assert_array_equal(stored.embedding, VECTORS[int(document)])
        of_its_own = int(document) % 3 and not isinstance(record, VectorRecord)
        assert stored.attributes["number"] == (int(document) if of_its_own else -1)
    again = await rows.insert([{"embedding": None}])  # twice is two rows
    assert again.new[0] not in told.new
    with pytest.raises(InvalidInputError, match=r"row 1\b.*") as refused:
        await rows.insert([{"embedding": VECTORS[0]}, {"embedding": [1.0]}])
    assert ("(id" in str(refused.value)) is (model is OfModel)
    assert await rows.count() == 601
    mixed = [{"embedding": VECTORS[0]}, {"id": told.new[0], "embedding": VECTORS[0]}]
    with pytest.raises(InvalidInputError, match="row 1 has an id, and others have none"):
        await rows.insert(mixed)
    with pytest.raises(InvalidInputError, match=r"row 0 lacks 'id'\. insert\(\) takes"):
        await rows.upsert(given[:1])


@pytest.mark.parametrize("lane", ["by itself", "watched", "in a unit of work"])
async def test_keys_that_are_made_come_back_in_the_order_of_the_records(
    dsn: str, lane: str
) -> None:
    async with Database.connect(dsn) as db:
        async with db.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        if lane == "watched":
            event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
        for model in MADE:
            if lane == "in a unit of work":
                async with db.unit_of_work() as uow:
                    await check(uow, model)
            else:
                await check(db, model)


async def test_who_makes_no_keys_says_so_and_a_key_that_is_there_is_a_conflict(dsn: str) -> None:
    async with counted(dsn) as trips, Database.connect(trips.dsn) as db:
        async with db.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        for model in (Nobodys, Pair, Texts):
            vectors = db.collection(model)
            with pytest.raises(InvalidInputError, match=r"row 0 lacks 'id', and .* makes none"):
                await vectors.insert([{"embedding": VECTORS[0]}])
        rows: VectorRepository[int] = db.collection(ByDefault)
        assert (await rows.insert([{"embedding": VECTORS[0]}])).new == [-3]
        async with trips.expect(1):
            assert (await rows.insert([{"embedding": VECTORS[0]}] * 3)).new == [-2, -1, 0]
        await rows.upsert([{"id": 2, "embedding": VECTORS[0]}])
        with pytest.raises(ConflictError, match="by_default"):
            await rows.insert([{"embedding": VECTORS[0]}] * 3)  # its sequence was behind
        assert await rows.count() == 5
