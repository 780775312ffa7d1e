"""What methods return is a valid type of pydantic's, and so a response of FastAPI's."""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from pydantic import BaseModel, TypeAdapter, ValidationError

import qortex_db
from qortex_db import (
    Aggregate,
    BranchHit,
    CacheStats,
    Database,
    EdgeSummary,
    EmbeddingBatch,
    FacetCount,
    FactorChanges,
    FactorSummary,
    Inserted,
    LearnerMetrics,
    ModelChange,
    Posterior,
    RejectedRecord,
    ScrollPage,
    SearchGroup,
    SearchGroups,
    SearchHit,
    SearchHits,
    Selection,
    SelectionResult,
    VectorRecord,
    WordStatistics,
    repositories,
)
from qortex_db.database import Status  # noqa: TC001 - FastAPI resolves annotations
from qortex_db.repositories import IndexAdvice, RecallProbe, SearchPlan, Tuning
from qortex_db.testing.factories import (
    ArmFactory,
    ArmOutcomeFactory,
    ArmStateFactory,
    EdgeStatsFactory,
    LearnerConfigFactory,
    PromotionFactory,
    VectorRecordFactory,
    embedding,
)
from qortex_db.types import SparseVector

if TYPE_CHECKING:
    from collections.abc import Callable

HIT = SearchHit("a", 0.5, {"n": 1}, "text", embedding(0, 8), {"thumb": embedding(1, 8)})
PLAIN_HIT = SearchHit("b", 0.25)
SPARSE = SparseVector({3: 0.5}, 10)
RECORD = VectorRecord("a", embedding(0, 8), {"n": 1}, None, {"s": SPARSE, "v": embedding(1, 8)})

RETURNED: list[Any] = [
    HIT,
    PLAIN_HIT,
    RECORD,
    VectorRecord("b", None),  # type: ignore[arg-type] # as scroll gives it
    SearchHits([HIT, PLAIN_HIT], requested=2, complete=True),
    BranchHit(1, 0.5),
    WordStatistics(3, 2, 1.5, "2026-01-01T00:00:00+00:00", 3, None),
    SearchGroup("red", [HIT]),
    SearchGroups([SearchGroup(1, [HIT]), SearchGroup(None, [])], requested=2, complete=True),
    ScrollPage([RECORD], "next"),
    EmbeddingBatch(["a"], np.ones((1, 2), np.float32)),
    FacetCount("red", 3),
    Inserted(["a"], ["b"]),
    Aggregate("red", 3, {"price": {"mean": 1.5, "distinct": 2}}),
    ArmFactory.build(metadata={"a": 1}),
    ArmOutcomeFactory.build(),
    ArmStateFactory.build(pulled=True),
    LearnerConfigFactory.build(seed_arms=["a"]),
    EdgeStatsFactory.build(old=True),
    PromotionFactory.build(),
    EdgeSummary(1, 2, 2.0, 2, 0),
    FactorChanges({"a": 1.5}, "1@2.3", 1),
    FactorSummary(1, 1.0, 1.0, 1.0, 0, 0, 0.0),
    LearnerMetrics("l", 1, 1, 2, 0.5),
    Posterior(0.5, 0.1, 0.2, 0.8, 3),
    Selection(("a",), ("b",), {"a": 0.5}, is_baseline=False, used_tokens=0),
    SelectionResult([ArmFactory.build()], [], False, {"a": 0.5}, 0, 0),
    CacheStats(1, 2, {"m": 1}),
    RejectedRecord(3, "a", "why"),
    ModelChange("old", "v2", None, 3, 1, "2026-01-01T00:00:00+00:00", ""),
    IndexAdvice("hnsw", "half", 100, ("why",)),
    RecallProbe(1.0, 10, 10, None),
    SearchPlan(("i",), 1, False, 0.5, "text"),
    Tuning(40, 1.0, {40: 1.0}),
]
GIVEN = {  # what a caller makes: declarations, and a function
    "BM25",
    "Collection",
    "CustomReward",
    "BinaryReward",
    "EpsilonGreedy",
    "Factor",
    "FieldBoost",
    "HNSW",
    "IVFFlat",
    "Limits",
    "Partitions",
    "RecencyBoost",
    "Settings",
    "TernaryReward",
    "ThompsonSampling",
    "UCB1",
    "ValueBoost",
    "VectorSpec",
}


def public() -> dict[str, type]:
    found = {
        name: getattr(module, name)
        for module in (qortex_db, repositories)
        for name in module.__all__
    }
    return {
        name: owner
        for name, owner in found.items()
        if inspect.isclass(owner)
        and (dataclasses.is_dataclass(owner) or hasattr(owner, "__get_pydantic_core_schema__"))
    }


def test_everything_that_is_returned_is_tried() -> None:
    assert {type(value).__name__ for value in RETURNED} == public().keys() - GIVEN


@pytest.mark.parametrize("value", RETURNED, ids=lambda value: type(value).__name__)
def test_what_is_returned_is_validated_dumped_and_read_again(value: Any) -> None:
    kind = type(value)
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    assert adapter.validate_python(value) is value
    sent = adapter.dump_json(value)
    read = adapter.validate_json(sent)
    assert type(read) is kind
    assert adapter.dump_json(read) == sent
    assert json.loads(sent) == adapter.dump_python(value, mode="json")
    adapter.dump_python(value)  # warnings are errors
    for mode in ("validation", "serialization"):
        assert json.dumps(adapter.json_schema(mode=mode))


def test_embeddings_are_lists_of_floats_in_json_and_arrays_in_python() -> None:
    sent = json.loads(TypeAdapter(SearchHit).dump_json(HIT))
    assert sent["embedding"] == embedding(0, 8).tolist()
    assert sent["attributes"] == {"thumb": embedding(1, 8).tolist()}
    read = TypeAdapter(SearchHit).validate_python(sent)
    np.testing.assert_array_equal(read.embedding, embedding(0, 8))
    assert read.embedding.dtype == np.float32
    schema = TypeAdapter(SearchHit).json_schema(mode="serialization")["properties"]["embedding"]
    assert {"type": "array", "items": {"type": "number"}} in schema["anyOf"]
    record = json.loads(TypeAdapter(VectorRecord).dump_json(RECORD))
    assert record["vectors"]["s"] == {"dimensions": 10, "indices": [3], "values": [0.5]}
    again = TypeAdapter(VectorRecord).validate_python(record)
    assert again.vectors["s"].to_list() == SPARSE.to_list()
    for bad in ({"embedding": ["x"]}, {"vectors": {"s": record["vectors"]["s"] | {"indices": 1}}}):
        with pytest.raises(ValidationError):
            TypeAdapter(VectorRecord).validate_python(record | bad)


class Answer(BaseModel):
    question: str
    hits: SearchHits
    best: SearchHit | None
    pages: list[ScrollPage]


async def test_fastapi_answers_with_them_and_describes_them(  # noqa: C901 - a list of calls
    db: Database,
) -> None:
    rows = VectorRecordFactory.build_batch(3, dimensions=8, with_payload=True)
    await db.vectors.upsert(rows)
    app = FastAPI()
    query = embedding(1, 8)

    async def hits() -> list[SearchHit]:
        return await db.vectors.search(query, with_embedding=True)  # type: ignore[return-value]

    async def sequence() -> SearchHits:
        return await db.vectors.search(query, with_embedding=True)

    async def page() -> ScrollPage:
        return await db.vectors.scroll(with_embedding=True)

    async def scrolled() -> ScrollPage:
        return await db.vectors.scroll()

    async def groups() -> SearchGroups:
        return await db.vectors.search_groups(query, "module", with_embedding=True)

    async def group() -> list[SearchGroup]:
        return list(await db.vectors.search_groups(query, "module"))

    async def records() -> dict[str, VectorRecord]:
        return await db.vectors.get([rows[0].id])

    async def answer() -> Answer:
        found = await db.vectors.search(query, with_embedding=True)
        pages = [await db.vectors.scroll(with_embedding=True)]
        return Answer(question="?", hits=found, best=found[0], pages=pages)

    async def status() -> Status:
        return await db.status()

    async def upsert(record: VectorRecord) -> int:
        return await db.vectors.upsert([record])

    calls: list[Callable[..., Any]] = [
        hits, sequence, page, scrolled, groups, group, records, answer, status
    ]  # fmt: skip
    for call in calls:
        app.get(f"/{call.__name__}")(call)
    app.post("/upsert")(upsert)
    got = {}
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        for call in calls:
            response = await client.get(f"/{call.__name__}")
            assert response.status_code == 200, (call.__name__, response.text)
            got[call.__name__] = response.json()
        assert (await client.get("/openapi.json")).status_code == 200
        body = {"id": "new", "embedding": [1.0] * 8, "payload": {"a": 1}}
        assert (await client.post("/upsert", json=body)).json() == 1
    found = got["hits"]
    assert [hit["id"] for hit in found] == [hit["id"] for hit in got["sequence"]]
    assert found[0]["id"] == "v00001"
    assert found[0]["embedding"] == query.tolist()
    assert found[0]["payload"] == rows[1].payload
    assert got["answer"]["hits"] == found
    assert got["page"]["records"][1]["embedding"] == query.tolist()
    assert got["scrolled"]["records"][1]["embedding"] is None
    assert got["groups"][0]["hits"][0]["embedding"] == query.tolist()
    assert got["records"]["v00000"]["embedding"] == embedding(0, 8).tolist()
