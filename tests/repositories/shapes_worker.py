"""A process that asks in ever new shapes, of ever new collections; it writes what memory it took.

By itself, since what a process once took it seldom gives back.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from typing import Any

import psutil
from sqlalchemy import and_
from sqlalchemy.orm import DeclarativeBase

from qortex_db import Collection, Database, VectorMixin, VectorSpec
from qortex_db.models import QortexVector

VECTOR = [1.0] * 8
OPERATORS = ("$eq", "$ne", "$gt", "$lte", "$in", "$exists", "$contains", "$like")
VALUES = 4_000
VALUE = "x" * 900
LARGE = 30


def megabytes() -> float:
    gc.collect()
    return psutil.Process().memory_info().rss / 2**20


class Asker:
    def __init__(self, db: Database, rng: random.Random) -> None:
        self.db = db
        self.rng = rng
        self.number = 0

    def shape(self) -> dict[str, Any]:
        """A filter of a shape that was not asked for before."""
        self.number += 1
        values = {"$in": ["a"], "$exists": True, "$like": "a%"}
        return {
            f"key{self.number}.at{i}": {name: values.get(name, 7)}
            for i, name in enumerate(self.rng.choices(OPERATORS, k=1 + self.number % 5))
        }

    async def ask(self) -> None:
        where, which = self.shape(), self.number % 20
        if which == 0:
            await self.db.vectors.search(VECTOR, where=where)
        elif which == 1:
            await self.db.vectors.hybrid_search(VECTOR, "word", where=where)
        elif which == 2:
            await self.db.vectors.delete_where({"$and": [where, {"no": "such"}]})
        elif which == 3:
            async with self.db.unit_of_work() as uow:
                await uow.vectors.search(VECTOR, where=where)
        else:
            await self.db.vectors.count(where=where)

    async def ask_for_much(self) -> None:
        """Values of 4 MB, in a filter and in a host's own expression."""
        self.number += 1
        values = [f"{VALUE}{self.number}-{i}" for i in range(VALUES)]
        await self.db.vectors.count(where={f"key{self.number}": {"$in": values}})
        document = QortexVector.document
        others = (document != str(i) for i in range(self.number % LARGE))
        async with self.db.unit_of_work() as uow:
            await uow.vectors.count(where=and_(document == VALUE * VALUES, *others))

    async def use_a_new_collection(self) -> None:
        """A model that is dropped afterwards, of a table that is there."""

        class Base(DeclarativeBase):
            pass

        class Passing(VectorMixin, Base):
            __tablename__ = "qortex_vectors"
            __collection__ = Collection(VectorSpec(8))

        collection = self.db.collection(Passing)
        await collection.upsert([{"id": "a", "embedding": VECTOR, "payload": {"n": self.number}}])
        await collection.search(VECTOR, where=self.shape())
        await collection.get(["a"])
        await collection.update("a", document="text")


async def main(dsn: str, shapes: str, collections: str) -> None:
    async with Database.connect(dsn) as db:
        asker = Asker(db, random.Random(7))  # noqa: S311 - a fixed choice
        for _ in range(20):
            await asker.ask()
            await asker.use_a_new_collection()
        await asker.ask_for_much()
        before = megabytes()
        for _ in range(LARGE):
            await asker.ask_for_much()
        values = megabytes()
        for _ in range(int(shapes)):
            await asker.ask()
        asked = megabytes()
        for _ in range(int(collections)):
            await asker.use_a_new_collection()
        print(values - before, asked - before, megabytes() - before)  # noqa: T201 - its answer


asyncio.run(main(*sys.argv[1:]))
