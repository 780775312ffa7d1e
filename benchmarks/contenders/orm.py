"""SQLAlchemy's ORM as most people write it first: a session a request, entities, text vectors."""

from __future__ import annotations

from typing import Any

from pgvector.sqlalchemy import Vector
from sqlalchemy import FetchedValue, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "qortex_vectors"
    id: Mapped[str] = mapped_column(primary_key=True)
    embedding: Mapped[Any] = mapped_column("vec", Vector)
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=FetchedValue())
    document: Mapped[str | None]


class ArmState(Base):
    __tablename__ = "arms"
    learner: Mapped[str] = mapped_column(primary_key=True)
    arm: Mapped[str] = mapped_column(primary_key=True)
    alpha: Mapped[float] = mapped_column(default=1.0)
    beta: Mapped[float] = mapped_column(default=1.0)
    pulls: Mapped[int] = mapped_column(default=0)


class Contender:
    async def open(self, dsn: str) -> None:
        self.engine = create_async_engine(
            dsn.replace("postgresql://", "postgresql+asyncpg://", 1), pool_size=10
        )
        async with self.engine.begin() as connection:
            await connection.run_sync(ArmState.metadata.tables["arms"].create, checkfirst=True)
        self.session = async_sessionmaker(self.engine, expire_on_commit=False)

    async def close(self) -> None:
        await self.engine.dispose()

    async def search(self, query: Any) -> list[str]:
        async with self.session() as session:
            rows = await session.execute(
                select(Item, Item.embedding.cosine_distance(query))
                .order_by(Item.embedding.cosine_distance(query))
                .limit(10)
            )
            return [item.id for item, _ in rows]

    async def get(self, key: str) -> Any:
        async with self.session() as session:
            return (await session.get_one(Item, key)).embedding

    async def upsert(self, ids: list[str], rows: Any) -> None:
        async with self.session() as session:
            session.add_all(Item(id=key, embedding=row) for key, row in zip(ids, rows, strict=True))
            await session.commit()

    async def search_unit(self, query: Any) -> list[str]:
        """What its search is anyway."""
        return await self.search(query)

    async def observe(self, learner: str, arm: str, reward: float) -> None:
        async with self.session() as session:
            state = await session.get(ArmState, (learner, arm))
            if state is None:
                state = ArmState(learner=learner, arm=arm, alpha=1.0, beta=1.0, pulls=0)
                session.add(state)
            state.alpha += reward
            state.beta += 1 - reward
            state.pulls += 1
            try:
                await session.commit()
            except Exception:  # two began with the same arm: one of them is lost
                await session.rollback()

    async def pulls(self, learner: str, _: list[str]) -> int:
        async with self.session() as session:
            states = await session.scalars(select(ArmState).where(ArmState.learner == learner))
            return sum(state.pulls for state in states)
