"""Texts that say almost the same: found by embeddings, the longest one kept.

export PGVECTOR_DSN=postgresql://user:password@host/database
python examples/cookbook/deduplicate.py
"""

import asyncio
from collections.abc import Iterable

from sqlalchemy.orm import DeclarativeBase
from words import DIMENSIONS, embed

from qortex_db import Collection, Database, VectorMixin, VectorRecord, VectorSpec
from qortex_db.sample import load_sample

MAX_QUERIES = 32  # of one search_many
ALIKE = 0.9  # for a model of meaning it is another one: look at some pairs around it


class Base(DeclarativeBase):
    """The host's."""


class Page(VectorMixin, Base):
    __tablename__ = "pages"
    __collection__ = Collection(VectorSpec(DIMENSIONS))


def texts() -> Iterable[VectorRecord]:
    """Some of the package's sample, and every fourth once more, a little changed."""
    for place, passage in enumerate(load_sample().passages[:200]):
        yield VectorRecord(passage["id"], document=passage["text"])
        if place % 4 == 0:
            changed = passage["text"].replace(".", "!").upper() + " (copied)"
            yield VectorRecord(f"{passage['id']} again", document=changed)


async def pairs(db: Database) -> list[tuple[str, str]]:
    """Ids that are alike; each batch of rows is one statement."""
    pages, found = db.collection(Page), []
    async for batch in pages.stream_batches(batch_size=MAX_QUERIES):
        near = await pages.search_many(batch.embeddings, limit=5, min_score=ALIKE)
        for key, hits in zip(batch.ids, near, strict=True):
            found += [(key, hit.id) for hit in hits if hit.id != key]
    return found


def groups(alike: Iterable[tuple[str, str]]) -> list[set[str]]:
    """Those that hang together, by pairs."""
    group_of: dict[str, set[str]] = {}
    for one, other in alike:
        joined = group_of.get(one, {one}) | group_of.get(other, {other})
        group_of |= dict.fromkeys(joined, joined)
    return list({id(group): group for group in group_of.values()}.values())


async def deduplicate(db: Database) -> int:
    """Keep the longest of each group; how many went."""
    pages, gone = db.collection(Page), 0
    for group in groups(await pairs(db)):
        records = await pages.get(group)
        longest = max(group, key=lambda one: (len(records[one].document or ""), one))
        gone += await pages.delete(group - {longest})
    return gone


async def main() -> None:
    async with Database.connect() as db:
        async with db.engine.begin() as connection:  # elsewhere a revision
            await connection.run_sync(Base.metadata.create_all)
        pages = db.collection(Page, embedder=embed)
        await pages.ingest(texts())
        before = await pages.count()
        gone = await deduplicate(db)
        print(f"{before} texts, {gone} of them said before, {await pages.count()} kept")


if __name__ == "__main__":
    asyncio.run(main())
