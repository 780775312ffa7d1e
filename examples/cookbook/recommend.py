"""More of what somebody likes: near to it, far from the rest, and not seen before.

export PGVECTOR_DSN=postgresql://user:password@host/database
qortex-db upgrade
python examples/cookbook/recommend.py

The items are the package's sample: docstrings with embeddings of all-MiniLM-L6-v2.
"""

import asyncio
from itertools import combinations

from qortex_db import Database, SearchHits
from qortex_db.sample import load_sample

EVEN = 0.5  # a mean above it: more likes than dislikes


async def like(db: Database, user: str, *items: str) -> None:
    """Keep what a user likes, and that these were liked together."""
    async with db.unit_of_work() as uow:
        for item in items:
            await uow.arms.observe("likes", item, reward=1.0, context={"user": user})
        pairs = [(one, other, 1.0) for one, other in combinations(sorted(items), 2)]
        await uow.edges.record_many(pairs)


async def dislike(db: Database, user: str, item: str) -> None:
    """Keep what is to be far away."""
    await db.arms.observe("likes", item, reward=0.0, context={"user": user})


async def recommend(db: Database, user: str, *, limit: int = 5) -> SearchHits:
    """Items that a user has not met: each is as good as its nearest liked one."""
    states = await db.arms.get_all("likes", context={"user": user})
    liked = [item for item, state in states.items() if state.mean > EVEN]
    not_liked = [item for item in states if item not in liked]
    return await db.vectors.recommend(
        liked, not_liked, limit=limit, strategy="best_score"
    )


async def main() -> None:
    async with Database.connect() as db:
        await db.vectors.ingest(load_sample().records())
        await like(db, "ada", "gzip.decompress", "lzma.compress")
        await dislike(db, "ada", "zipimport.zipimporter.find_loader")
        for hit in await recommend(db, "ada"):
            print(f"{hit.score:.2f} {hit.id}")
        # What many like together is an edge with hits, which `edges.promote` hands on.
        for user in ("bob", "eve"):
            await like(db, user, "gzip.decompress", "lzma.compress")
        for pair in await db.edges.promote(min_hits=3):
            print(f"liked together by {pair.hit_count}: {pair.src_id}, {pair.tgt_id}")


if __name__ == "__main__":
    asyncio.run(main())
