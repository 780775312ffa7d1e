"""An int or a UUID is an id wherever one is given, as its text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import event

from qortex_db import Database, InvalidInputError, PgVectorIndex, VectorRecord
from qortex_db.testing.factories import embedding

if TYPE_CHECKING:
    from collections.abc import Callable

    from qortex_db.repositories import VectorRepository

KEY = UUID(int=7)
GIVEN: list[tuple[Any, str]] = [
    (7, "7"),
    (-(2**70), str(-(2**70))),
    (np.int64(8), "8"),
    (np.uint8(9), "9"),
    (KEY, "00000000-0000-0000-0000-000000000007"),
    ("text", "text"),
    (np.str_("numpy's"), "numpy's"),
]
IDS = [key for key, _ in GIVEN]
TEXTS = [text for _, text in GIVEN]
Q = embedding(0, 8)


@pytest.fixture(params=["by itself", "watched", "in a unit of work"])
async def vectors(request: pytest.FixtureRequest, db: Database) -> Any:
    if request.param == "watched":
        event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
    if request.param == "in a unit of work":
        async with db.unit_of_work() as uow:
            yield uow.vectors
    else:
        yield db.vectors


async def test_ints_and_uuids_are_ids_as_their_text_everywhere(vectors: VectorRepository) -> None:
    rows = [{"id": key, "embedding": embedding(n, 8)} for n, key in enumerate(IDS)]
    assert await vectors.upsert(rows) == len(GIVEN)
    records = [VectorRecord(key, row["embedding"]) for key, row in zip(IDS, rows, strict=True)]
    assert await vectors.upsert(records) == 0  # they are the same rows
    assert await vectors.ingest([{"id": "7", "embedding": embedding(0, 8)}]) == 1
    assert sorted([record.id async for record in vectors.stream()]) == sorted(TEXTS)
    assert set(await vectors.get(IDS)) == set(TEXTS)
    assert set(await vectors.get({7, KEY})) == {"7", str(KEY)}
    for key, text in GIVEN:
        assert await vectors.update(key, document=text)
        assert await vectors.count(where={"$id": key}) == 1
        assert await vectors.count(where={"$not": {"$id": [key]}}) == len(GIVEN) - 1
        assert await vectors.merge_payload({"is": text}, ids=[key]) == 1
        (found,) = await vectors.search(Q, where={"$id": [key]})
        assert (found.id, found.payload, found.document) == (text, {"is": text}, text)
        hits = await vectors.recommend([key], [IDS[0]] if key != 7 else (), limit=100)
        assert text not in {hit.id for hit in hits}
    assert [hit.id for hit in await vectors.recommend([7])] == [
        hit.id for hit in await vectors.recommend(["7"])
    ]
    assert await vectors.delete([7, "7", KEY, 404]) == 2


async def test_the_last_of_an_id_wins_however_it_is_written(db: Database) -> None:
    rows: list[Any] = [
        {"id": 7, "embedding": Q, "payload": {"n": 1}},
        {"id": "7", "embedding": Q, "payload": {"n": 2}},
    ]
    assert await db.vectors.upsert(rows) == 1
    assert (await db.vectors.get([7]))["7"].payload == {"n": 2}


@pytest.mark.parametrize("size", [200, 1_001])
async def test_ids_of_large_batches_are_converted_too(db: Database, size: int) -> None:
    rows = [{"id": n, "embedding": embedding(n, 8)} for n in range(size)]
    assert await db.vectors.upsert(rows) == size
    assert await db.vectors.count(where={"$id": list(range(size))}) == size


async def test_the_store_takes_them_too(db: Database) -> None:
    index = PgVectorIndex(db, dimensions=8)
    await index.add([1, KEY], [Q, Q])  # type: ignore[list-item]
    assert {key for key, _ in await index.search(Q)} == {"1", str(KEY)}
    await index.remove([1])  # type: ignore[list-item]
    assert await index.size() == 1


NO_IDS: dict[str, Any] = {
    "a bool": True,
    "numpy's bool": np.True_,
    "a float": 7.0,
    "bytes": b"7",
    "None": None,
    "a list": ["a"],
    "a huge int": 10**5000,
    "an int of 1,200 digits": 10**1200 - 1,
}
CALLS: dict[str, Callable[[VectorRepository, Any], Any]] = {
    "upsert": lambda vectors, key: vectors.upsert([{"id": key, "embedding": Q}]),
    "get": lambda vectors, key: vectors.get([key]),
    "update": lambda vectors, key: vectors.update(key, document="x"),
    "update_many": lambda vectors, key: vectors.update_many([{"id": key, "document": "x"}]),
    "insert": lambda vectors, key: vectors.insert([{"id": key, "embedding": None}]),
    "delete": lambda vectors, key: vectors.delete([key]),
    "merge_payload": lambda vectors, key: vectors.merge_payload({"a": 1}, ids=[key]),
    "$id": lambda vectors, key: vectors.count(where={"$id": [key]}),
    "recommend": lambda vectors, key: vectors.recommend([key]),
}


@pytest.mark.parametrize("name", CALLS)
async def test_what_is_no_id_is_refused(db: Database, name: str) -> None:
    for kind, value in NO_IDS.items():
        if name == "$id" and kind == "an int of 1,200 digits":
            continue  # no row has it
        with pytest.raises(InvalidInputError):
            await CALLS[name](db.vectors, value)


async def test_keys_of_arms_factors_and_edges_are_texts(db: Database) -> None:
    for key in (7, KEY):
        for call in (
            db.factors.save({key: 1.0}),  # type: ignore[dict-item]
            db.edges.record("a", key, score=1.0),  # type: ignore[arg-type]
            db.arms.observe("l", key, reward=1.0),  # type: ignore[arg-type]
        ):
            with pytest.raises(InvalidInputError, match=r"pass str\(id\)"):
                await call
