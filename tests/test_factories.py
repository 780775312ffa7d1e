"""What factories build is what the server takes, and gives back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import inspect

from qortex_db import Database, EdgeStats, Learner, VectorRecord
from qortex_db.models import Base
from qortex_db.testing.factories import (
    FACTORIES,
    ArmFactory,
    ArmOutcomeFactory,
    ArmStateFactory,
    EdgeStatsFactory,
    LearnerConfigFactory,
    PromotionFactory,
    SearchHitFactory,
    VectorRecordFactory,
    embedding,
    pair,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

MODELS = {made._meta.model: made for made in FACTORIES if issubclass(made._meta.model, Base)}
OTHERS = [made for made in FACTORIES if made not in MODELS.values()]


@pytest.fixture
async def db(dsn384: str) -> AsyncIterator[Database]:
    async with Database.connect(dsn384) as database:
        yield database


def plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def columns(row: Base) -> dict[str, Any]:
    return {name: plain(getattr(row, name)) for name in inspect(type(row)).columns.keys()}  # noqa: SIM118 - no mapping


def fields(record: VectorRecord) -> list[Any]:
    return [plain(getattr(record, name)) for name in VectorRecord.__slots__]


def test_every_model_has_a_factory() -> None:
    assert MODELS.keys() == {mapper.class_ for mapper in Base.registry.mappers}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
async def test_a_model_is_saved_and_loaded_and_another_has_another_key(
    db: Database, model: type[Base]
) -> None:
    rows = MODELS[model].build_batch(2)
    given = [{name: plain(value) for name, value in vars(row).items()} for row in rows]
    async with db.unit_of_work() as uow:
        uow.session.add_all(rows)
    keys = [inspect(row).identity for row in rows]
    assert keys[0] != keys[1]
    for key, values in zip(keys, given, strict=True):
        async with db.unit_of_work() as uow:
            loaded = columns(await uow.session.get_one(model, key))
        del values["_sa_instance_state"]
        assert loaded == loaded | values


async def _vectors(db: Database) -> None:
    records = [
        VectorRecordFactory.build(),
        VectorRecordFactory.build(with_payload=True, with_document=True),
    ]
    assert await db.vectors.upsert(records) == 2
    found = await db.vectors.get([record.id for record in records])
    bare, full = (fields(found[record.id]) for record in records)
    assert bare == fields(replace(records[0], payload={}))
    assert full == fields(records[1])
    assert {"module", "kind"} == (records[1].payload or {}).keys()
    assert records[1].document


async def _hits(db: Database) -> None:
    hits = SearchHitFactory.build_batch(2)
    for number, hit in enumerate(hits):
        one = VectorRecord(hit.id, embedding(number), hit.payload)
        await db.vectors.upsert([one])
        (found,) = await db.vectors.search(embedding(number), limit=1)
        assert (found.id, found.payload, found.document) == (hit.id, hit.payload, hit.document)
        assert (found.embedding, found.attributes) == (hit.embedding, hit.attributes)
        assert found.score == pytest.approx(hit.score)
    assert await db.vectors.count() == 2


async def _edges(db: Database) -> None:
    given = {pair(n): EdgeStatsFactory.build(old=True, ready=n == 1) for n in range(2)}
    await db.edges.save(given)
    assert await db.edges.load() == given
    assert [(p.src_id, p.tgt_id) for p in await db.edges.promote()] == [pair(1)]


async def _promotions(db: Database) -> None:
    promotions = PromotionFactory.build_batch(2)
    await db.edges.save(
        {(p.src_id, p.tgt_id): EdgeStats(p.hit_count, [p.avg_score]) for p in promotions}
    )
    assert len(await db.edges.load()) == 2
    assert await db.edges.promote() == promotions


async def _states(db: Database) -> None:
    given = [ArmStateFactory.build(old=True), ArmStateFactory.build(pulled=True, old=True)]
    for number, state in enumerate(given):
        await db.arms.put("l", str(number), state)
    assert list((await db.arms.get_all("l")).values()) == given
    assert (await db.arms.get("l", "1")).mean == 4 / 6


async def _arms(db: Database) -> None:
    arms = ArmFactory.build_batch(2)
    selection = await db.arms.select("l", arms, k=2)
    assert sorted(selection.selected) == [arm.id for arm in arms]


async def _outcomes(db: Database) -> None:
    learners = [Learner(config, store=db) for config in LearnerConfigFactory.build_batch(2)]
    outcomes = ArmOutcomeFactory.build_batch(2)
    for learner in learners:
        states = await learner.batch_observe(outcomes)
        assert {key: state.total_reward for key, state in states.items()} == {
            outcome.arm_id: outcome.reward for outcome in outcomes
        }
        assert len(states) == 2
        assert (await db.arms.metrics(learner.config.name)).arm_count == 2


RECORDS: dict[Any, Callable[[Database], Awaitable[None]]] = {
    ArmFactory: _arms,
    ArmOutcomeFactory: _outcomes,
    ArmStateFactory: _states,
    EdgeStatsFactory: _edges,
    LearnerConfigFactory: _outcomes,
    PromotionFactory: _promotions,
    SearchHitFactory: _hits,
    VectorRecordFactory: _vectors,
}


@pytest.mark.parametrize("made", OTHERS, ids=lambda made: made.__name__)
async def test_a_record_is_saved_by_its_repository_and_read_back(db: Database, made: Any) -> None:
    await RECORDS[made](db)
