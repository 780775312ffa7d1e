"""A program of hosts that declare their models in every way, with sessions of their own class.

It is type-checked as a strict host would be, and run.
"""

from __future__ import annotations

import asyncio
import sys

import numpy as np
from advanced_alchemy.base import BigIntBase, DefaultBase
from numpy.typing import NDArray  # noqa: TC002 - SQLAlchemy resolves Mapped[...]
from sqlalchemy import Text
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    DeclarativeBaseNoMeta,
    Mapped,
    declarative_base,
    mapped_column,
    registry,
)
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession as SQLModelSession

from qortex_db import (
    Collection,
    Database,
    UnitOfWork,
    VectorMixin,
    VectorSpec,
    unit_of_work,
    vector_column,
)
from qortex_db.testing import asyncpg_url, create_all

SPEC = Collection(VectorSpec(8))
OWN = VectorSpec(8, index=None)
VECTOR = np.ones(8, np.float32)


class Base(DeclarativeBase):
    pass


class NoMeta(DeclarativeBaseNoMeta):
    pass


mapper_registry = registry()
Legacy = declarative_base()


class Declarative(VectorMixin, Base):
    __tablename__ = "declarative"
    __collection__ = SPEC


class WithoutMeta(VectorMixin, NoMeta):
    __tablename__ = "without_meta"
    __collection__ = SPEC


@mapper_registry.mapped
class Mapped_(VectorMixin):  # noqa: N801 - SQLAlchemy's decorator in its name
    __tablename__ = "mapped"
    __collection__ = SPEC


class Old(VectorMixin, Legacy):  # type: ignore[misc, valid-type]  # as SQLAlchemy says of it
    __tablename__ = "old"
    __collection__ = SPEC


class ByHand(Base):
    """No mixin: a table with an id and a vec."""

    __tablename__ = "by_hand"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    vec: Mapped[NDArray[np.float32]] = vector_column(OWN)


class Advanced(VectorMixin, DefaultBase):
    __tablename__ = "advanced"
    __collection__ = SPEC


class Author(BigIntBase):
    """A neighbour with Advanced Alchemy's own key."""

    __tablename__ = "author"

    name: Mapped[str]


class Model(VectorMixin, SQLModel, table=True):
    __tablename__ = "model"
    __collection__ = SPEC

    author: str | None = Field(default=None)


MODELS: list[type[object]] = [
    *(Declarative, WithoutMeta, Mapped_, Old, ByHand, Advanced, Model),
]
METADATA = (
    *(Base.metadata, NoMeta.metadata, mapper_registry.metadata, Legacy.metadata),
    *(DefaultBase.metadata, BigIntBase.metadata, SQLModel.metadata),
)


class OwnSession(AsyncSession):
    pass


async def use(uow: UnitOfWork) -> None:
    for collection in (
        uow.collection(Declarative),
        uow.collection(WithoutMeta),
        uow.collection(Mapped_),
        uow.collection(Old),
        uow.collection(ByHand),
        uow.collection(Advanced),
        uow.collection(Model),
    ):
        await collection.upsert([{"id": "a", "embedding": VECTOR}])
        hits = await collection.search(VECTOR, limit=1)
        assert [hit.id for hit in hits] == ["a"]


async def main(dsn: str) -> None:
    await create_all(dsn, *METADATA)
    engine = create_async_engine(asyncpg_url(dsn))
    own = async_scoped_session(async_sessionmaker(engine, class_=OwnSession), asyncio.current_task)
    of_sqlmodel = async_scoped_session(
        async_sessionmaker(engine, class_=SQLModelSession, expire_on_commit=False),
        asyncio.current_task,
    )
    async with unit_of_work(own) as uow:
        await use(uow)
    await own.commit()
    await own.remove()
    async with unit_of_work(of_sqlmodel) as uow:
        await use(uow)
    await of_sqlmodel.remove()
    async with SQLModelSession(engine) as session, unit_of_work(session) as uow:
        await use(uow)
    async with async_sessionmaker(engine)() as plain, unit_of_work(plain) as uow:
        await use(uow)
    async with Database.from_engine(engine) as db:
        for model in MODELS:
            assert await db.collection(model).count() == 1
        async with db.unit_of_work() as uow:
            await use(uow)
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
