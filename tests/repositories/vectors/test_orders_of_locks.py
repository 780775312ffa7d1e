"""Writers of the same rows in opposite orders, on keys of each type: none waits for another."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import BigInteger, MetaData, SmallInteger, String, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

from qortex_db import Collection, Database, VectorSpec
from qortex_db.types import Embedding
from support.catalogue import rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from qortex_db.repositories import VectorRepository

pytestmark = pytest.mark.faults

COUNT = 400
"""Parts of a pipelined batch: three."""
VECTORS = np.random.default_rng(2).normal(size=(COUNT, 384)).astype(np.float32)
LETTERS = "aAbBzZéÉ0_-'"


def text_key(number: int) -> str:
    """In another order by any language than by code point."""
    return f"{LETTERS[number % 12]}{LETTERS[number // 12 % 12]}{number}"


def uuid_key(number: int) -> UUID:
    return UUID(int=number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128)


KEYS: dict[str, tuple[dict[str, Any], Callable[[int], Any]]] = {
    "bigint": ({"id": BigInteger()}, lambda n: (n - 200) * 10**15),
    "smallint": ({"id": SmallInteger()}, lambda n: n - 200),
    "uuid": ({"id": Uuid()}, uuid_key),
    "uuid as text": ({"id": Uuid(as_uuid=False)}, lambda n: str(uuid_key(n))),
    "varchar": ({"id": String(99)}, text_key),
    "int and text": (
        {"a": BigInteger(), "b": String()},
        lambda n: (n % 30 - 15, text_key(n)),
    ),
    "uuid and int": ({"a": Uuid(), "b": BigInteger()}, lambda n: (uuid_key(n // 9), -n)),
    "partitions": ({"id": BigInteger()}, lambda n: n - 200),
}


def model(name: str) -> Any:
    kinds, _ = KEYS[name]
    base: Any = type("Base", (DeclarativeBase,), {"metadata": MetaData()})
    keys = {
        column: mapped_column(column, kind, primary_key=True, autoincrement=False)
        for column, kind in kinds.items()
    }
    space: dict[str, Any] = {
        "__tablename__": "t",
        "__collection__": Collection(
            VectorSpec(384, index=None, column="emb"),
            id="id" if len(keys) == 1 else tuple(keys),
            payload="data",
        ),
        "emb": mapped_column(Embedding(384)),
        "data": mapped_column(JSONB),
        **keys,
    }
    if name == "partitions":
        space["__table_args__"] = {"postgresql_partition_by": "HASH (id)"}
    return type("T", (base,), space)


@pytest.mark.parametrize("name", KEYS)
async def test_opposite_orders_never_deadlock(empty_dsn: str, name: str) -> None:
    table, key = model(name), KEYS[name][1]
    dsn = f"{empty_dsn}&options=-c%20deadlock_timeout=20"  # it is told soon
    keys = [key(n) for n in range(COUNT)]
    async with Database.connect(dsn) as db:
        async with db.engine.begin() as connection:
            await connection.exec_driver_sql("CREATE EXTENSION vector")
            await connection.run_sync(table.metadata.create_all)
            if name == "partitions":
                for part in range(3):
                    await connection.exec_driver_sql(
                        f"CREATE TABLE t_{part} PARTITION OF t FOR VALUES WITH "
                        f"(MODULUS 3, REMAINDER {part})"
                    )

        async def write(number: int) -> None:
            given = [
                {"id": one, "embedding": VECTORS[i], "payload": {"by": number}}
                for i, one in enumerate(keys)
            ]
            random.Random(number).shuffle(given)  # noqa: S311 - in an order of its own
            for turn in range(3):
                if number % 2:
                    await change(db.collection(table), given, turn + number)
                else:
                    async with db.unit_of_work() as uow:
                        await change(uow.collection(table), given, turn + number)

        async def change(vectors: VectorRepository[Any], given: list[Any], turn: int) -> None:
            if turn % 4 == 0:
                await vectors.upsert(given)
            elif turn % 4 == 1:
                await vectors.update_many(
                    [{"id": one["id"], "payload": {"by": -turn}} for one in given]
                )
            elif turn % 4 == 2:
                await vectors.delete([one["id"] for one in given[::2]])
            else:
                await vectors.merge_payload({"n": turn}, ids=[one["id"] for one in given])

        await db.collection(table).upsert(
            {"id": one, "embedding": VECTORS[i]} for i, one in enumerate(keys)
        )
        async with asyncio.timeout(60):
            await asyncio.gather(*map(write, range(8)))
        await db.collection(table).upsert(
            {"id": one, "embedding": VECTORS[i]} for i, one in enumerate(reversed(keys))
        )
        assert await db.collection(table).count() == COUNT
    deadlocks = "SELECT deadlocks::text FROM pg_stat_database WHERE datname = current_database()"
    assert await rows(empty_dsn, deadlocks) == ["0"]
