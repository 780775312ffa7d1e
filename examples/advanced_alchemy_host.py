"""A host with Advanced Alchemy: its repositories, and search by meaning over one of its models.

    pip install qortex-db advanced-alchemy
    export PGVECTOR_DSN=postgresql://user:password@host/database
    qortex-db upgrade
    python examples/advanced_alchemy_host.py

Its tables are made here as they are in a test; an application's own Alembic makes them otherwise.
"""

import asyncio
import os
from uuid import UUID

import numpy as np
from advanced_alchemy.base import DefaultBase, UUIDAuditBase
from advanced_alchemy.config import AsyncSessionConfig, SQLAlchemyAsyncConfig
from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column, relationship

from qortex_db import Collection, Database, VectorMixin, VectorSpec, payload_index, unit_of_work

DIMENSIONS = 8


class Author(UUIDAuditBase):
    """A model as Advanced Alchemy has them."""

    __tablename__ = "authors"

    name: Mapped[str]


class Article(VectorMixin, DefaultBase):
    """A collection: a table of vectors among the host's own."""

    __tablename__ = "articles"
    __collection__ = Collection(VectorSpec(DIMENSIONS), language="english")

    author_id: Mapped[UUID] = mapped_column(ForeignKey(Author.id))
    author: Mapped[Author] = relationship(lazy="joined")


payload_index(Article.__table__, "year", kind="integer")


class Authors(SQLAlchemyAsyncRepository[Author]):
    """Advanced Alchemy's repository of authors."""

    model_type = Author


class Articles(SQLAlchemyAsyncRepository[Article]):
    """The same of articles, whose vectors ours searches."""

    model_type = Article
    id_attribute = "id"


def vector(angle: float) -> np.ndarray:
    """What an embedding model would give."""
    return np.array([np.cos(angle), np.sin(angle), *[0.0] * (DIMENSIONS - 2)], np.float32)


async def main(dsn: str) -> list[tuple[str, str]]:
    """Store articles with their author in one transaction, and find them by meaning."""
    config = SQLAlchemyAsyncConfig(
        connection_string=dsn.replace("postgresql://", "postgresql+asyncpg://", 1),
        session_config=AsyncSessionConfig(expire_on_commit=False),
        create_all=False,
    )
    engine = config.get_engine()
    Database.from_engine(engine)  # its connections take vectors in binary from now on
    async with engine.begin() as connection:
        for base in (UUIDAuditBase, DefaultBase):
            await connection.run_sync(base.metadata.create_all)
    async with config.get_session() as session:
        ada = await Authors(session=session).add(Author(name="Ada"))
        await Articles(session=session).add_many(
            [
                Article(
                    id=f"a{n}",
                    embedding=vector(n / 10),
                    document=f"Note {n}",
                    payload={"year": 1840 + n},
                    author_id=ada.id,
                )
                for n in range(5)
            ]
        )
        async with unit_of_work(session) as uow:  # the same transaction
            hits = await uow.collection(Article).search(
                vector(0.31), limit=2, where={"year": {"$lt": 1843}}
            )
            await uow.arms.observe("prompts", "prompt:v2", reward=1.0)
        found = {hit.id: await Articles(session=session).get(hit.id) for hit in hits}
        await session.commit()
    await engine.dispose()
    return [(hit.id, found[hit.id].author.name) for hit in hits]


if __name__ == "__main__":
    print(asyncio.run(main(os.environ["PGVECTOR_DSN"])))
