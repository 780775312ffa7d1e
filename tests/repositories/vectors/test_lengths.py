"""Vectors so long or so short that the server has no cosine of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.orm import DeclarativeBase, Mapped

from qortex_db import Collection, Database, InvalidInputError, VectorMixin, VectorSpec
from qortex_db.models import vector_column
from qortex_db.types.sparse import SparseVector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DIMENSIONS = 384
LOSES_DIGITS = 9e-20  # the server's sum of squares; refused before all are gone
ROWS = 200  # several parts of a batch


class Own(DeclarativeBase):
    pass


class Lengthy(VectorMixin, Own):
    __tablename__ = "lengthy"
    __collection__ = Collection(VectorSpec(DIMENSIONS, index=None), language=None)

    half: Mapped[Any | None] = vector_column(VectorSpec(8, storage="half", index=None))
    short_index: Mapped[Any | None] = vector_column(VectorSpec(8, quantization="half"))
    sparse: Mapped[Any | None] = vector_column(VectorSpec(8, storage="sparse", index=None))
    by_l2: Mapped[Any | None] = vector_column(VectorSpec(8, "l2", index=None))


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    async with Database.connect(dsn) as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Lengthy.__table__.create)  # type: ignore[attr-defined]
        yield database


def unit(dimensions: int) -> np.ndarray[Any, Any]:
    return np.linspace(1, 2, dimensions) / np.linalg.norm(np.linspace(1, 2, dimensions))


@pytest.mark.parametrize("kind", ["vector", "halfvec", "sparsevec"])
async def test_what_the_server_has_a_cosine_of_is_taken_and_nothing_else(
    db: Database, kind: str
) -> None:
    name = {"vector": None, "halfvec": "half", "sparsevec": "sparse"}[kind]
    dimensions = DIMENSIONS if name is None else 8
    vectors = db.collection(Lengthy)
    query = np.eye(1, dimensions).ravel()
    lengths = {"halfvec": (2e-8, 3e-7, 1e3)}.get(
        kind, (1e-25, LOSES_DIGITS, 1.2e-19, 1e-15, 1e15, 1.8e19, 1.86e19, 1e30)
    )
    for length in lengths:
        numbers = (length * unit(dimensions)).astype(np.float32)
        sent = dict(enumerate(numbers.tolist())) if kind == "sparsevec" else numbers
        record: dict[str, Any] = {"id": "one", "embedding": unit(DIMENSIONS)}
        record |= {"embedding": sent} if name is None else {"vectors": {name: sent}}
        parts = ",".join(f"{i + 1}:{n!r}" for i, n in enumerate(map(float, numbers)))
        written = f"{{{parts}}}/{dimensions}" if kind == "sparsevec" else str(numbers.tolist())
        asked = f"{{1:1}}/{dimensions}" if kind == "sparsevec" else str(query.tolist())
        async with db.engine.connect() as connection:
            distance = await connection.scalar(
                text(f"SELECT CAST(:a AS {kind}) <=> CAST(:b AS {kind})"),
                {"a": written, "b": asked},
            )
        held = numbers.astype(np.float16 if kind == "halfvec" else np.float64).astype(np.float64)
        cosine = held[0] / np.linalg.norm(held) if held.any() else np.nan
        if abs(1 - distance - cosine) < 1e-4 and length != LOSES_DIGITS:
            await vectors.upsert([record])
            (hit,) = await vectors.search(sent, using=name)
            assert hit.score == pytest.approx(1, abs=1e-3)
        else:
            with pytest.raises(InvalidInputError, match=r"for a cosine|zero vector"):
                await vectors.upsert([record])


CALLS: dict[str, Any] = {
    "upsert": lambda v, bad: v.upsert([{"id": "bad", "embedding": bad}]),
    "upsert of parts": lambda v, bad: v.upsert(
        [{"id": f"{i}", "embedding": unit(DIMENSIONS)} for i in range(ROWS)]
        + [{"id": "bad", "embedding": bad}]
    ),
    "lists": lambda v, bad: v.upsert([{"id": "bad", "embedding": bad.tolist()}]),
    "ingest": lambda v, bad: v.ingest([{"id": "bad", "embedding": bad}]),
    "update": lambda v, bad: v.update("good", embedding=bad),
    "search": lambda v, bad: v.search(bad),
    "range_search": lambda v, bad: v.range_search(bad, min_score=0.5),
    "search_groups": lambda v, bad: v.search_groups(bad, "a"),
    "search_many": lambda v, bad: v.search_many([unit(DIMENSIONS), bad]),
    "multi_search": lambda v, bad: v.multi_search([unit(DIMENSIONS), bad]),
    "mmr_search": lambda v, bad: v.mmr_search(bad),
    "hybrid_search": lambda v, bad: v.hybrid_search(bad, "word"),
    "recommend": lambda v, bad: v.recommend([bad]),
    "explain": lambda v, bad: v.explain(bad),
}
FURTHER: dict[str, Any] = {
    "half": np.full(8, 1e-8),
    "short_index": np.full(8, 1e-8),
    "sparse": SparseVector({0: 3e38}, 8),
}


@pytest.mark.parametrize("length", [3e38, 1e-30])
async def test_every_write_and_every_query_refuses_it_in_both_lanes(
    db: Database, length: float
) -> None:
    bad = np.full(DIMENSIONS, length, np.float32)
    await db.collection(Lengthy).upsert([{"id": "good", "embedding": unit(DIMENSIONS)}])
    async with db.unit_of_work() as uow:
        for vectors in (db.collection(Lengthy), uow.collection(Lengthy)):
            for call in CALLS.values():
                with pytest.raises(InvalidInputError, match=r"too (long|short) for a cosine"):
                    await call(vectors, bad)
            for name, value in FURTHER.items():
                for write in (vectors.upsert, vectors.ingest):
                    record = {"id": "good", "embedding": unit(DIMENSIONS), "vectors": {name: value}}
                    with pytest.raises(InvalidInputError, match=r"cosine|zero vector"):
                        await write([record])
                with pytest.raises(InvalidInputError, match=r"cosine|zero vector"):
                    await vectors.update("good", vectors={name: value})
                with pytest.raises(InvalidInputError, match=r"cosine|zero vector"):
                    await vectors.search(value, using=name)
            with pytest.raises(InvalidInputError, match="too long"):
                await vectors.hybrid_search(None, sparse=FURTHER["sparse"])
    # Distances know no such limits.
    await db.collection(Lengthy).update("good", vectors={"by_l2": [1e-30] * 8})
    assert (await db.collection(Lengthy).search([0.0] * 8, using="by_l2"))[0].id == "good"
    assert await db.collection(Lengthy).count() == 1
