"""A host with SQLModel: its models and sessions, and a memory in their transactions.

    pip install qortex-db sqlmodel
    export PGVECTOR_DSN=postgresql://user:password@host/database
    qortex-db upgrade
    python examples/sqlmodel_host.py

Its tables are made here as they are in a test; an application's own Alembic makes them otherwise.
"""

import asyncio
import os

import numpy as np
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from qortex_db import Collection, Database, VectorMixin, VectorSpec, unit_of_work

DIMENSIONS = 8


class Team(SQLModel, table=True):
    """A model as SQLModel has them."""

    id: int | None = Field(default=None, primary_key=True)
    name: str


class Hero(VectorMixin, SQLModel, table=True):
    """A collection. SQLModel's constructor knows the fields below, not the mixin's columns."""

    __tablename__ = "heroes"
    __collection__ = Collection(VectorSpec(DIMENSIONS))

    team_id: int = Field(foreign_key="team.id")


def vector(angle: float) -> np.ndarray:
    """What an embedding model would give."""
    return np.array([np.cos(angle), np.sin(angle), *[0.0] * (DIMENSIONS - 2)], np.float32)


async def main(dsn: str) -> list[tuple[str, str]]:
    """Store heroes with their team in one transaction, and find them by meaning."""
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://", 1))
    Database.from_engine(engine)  # its connections take vectors in binary from now on
    async with engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all)
    async with AsyncSession(engine, expire_on_commit=False) as session:
        team = Team(name="Analytical")
        session.add(team)
        await session.flush()
        async with unit_of_work(session) as uow:  # the same transaction
            heroes = uow.collection(Hero)
            await heroes.upsert(
                {
                    "id": f"h{n}",
                    "embedding": vector(n / 10),
                    "payload": {"year": 1840 + n},
                    "attributes": {"team_id": team.id},
                }
                for n in range(5)
            )
            hits = await heroes.search(vector(0.31), limit=2, where={"year": {"$lt": 1843}})
        # The models are SQLModel's, for its own select too.
        nearest = select(Hero, Team).join(Team).where(Hero.id.in_([hit.id for hit in hits]))
        teams = {hero.id: team.name for hero, team in (await session.exec(nearest)).all()}
        await session.commit()
    await engine.dispose()
    return [(hit.id, teams[hit.id]) for hit in hits]


if __name__ == "__main__":
    print(asyncio.run(main(os.environ["PGVECTOR_DSN"])))
