"""Whatever a record has, the stores and repositories keep: a new field of it too."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from qortex_db import (
    ArmState,
    Database,
    EdgeStats,
    PostgresInteroceptionStore,
    PostgresLearningStore,
)
from qortex_db.stores import interoception
from qortex_db.testing.factories import ArmStateFactory, EdgeStatsFactory, pair

if TYPE_CHECKING:
    from collections.abc import Callable

VALUES: dict[str, Callable[[int], Any]] = {
    "int": lambda number: number,
    "float": lambda number: number + 0.25,
    "list[float]": lambda number: [number / 8, number / 4],
    "str": lambda number: f"2025-01-{number:02}T00:00:00+00:00",
}
"""By a field's type; times are the only texts."""


def filled(kind: type[Any]) -> Any:
    """An object with another value in each of its fields, none of them the default."""
    unknown = {one.name: one.type for one in fields(kind) if one.type not in VALUES}
    assert not unknown, f"VALUES has no value of these types; add one: {unknown}"
    given = kind(**{one.name: VALUES[one.type](n) for n, one in enumerate(fields(kind), 3)})
    default = kind()
    assert all(getattr(given, one.name) != getattr(default, one.name) for one in fields(kind))
    return given


@dataclass
class TheirEdgeStats:
    """The shape of qortex's own class."""

    hit_count: int = 0
    scores: list[float] = field(default_factory=list)
    last_seen: str = ""


@pytest.mark.parametrize("is_new", [True, False])
async def test_every_field_of_an_edge_is_stored(db: Database, is_new: bool) -> None:
    given = filled(EdgeStats)
    if not is_new:
        await db.edges.save({pair(0): EdgeStatsFactory.build()})
    await db.edges.save({pair(0): given})
    assert await db.edges.load() == {pair(0): given}
    assert await db.edges.get(*pair(0)) == given


@pytest.mark.parametrize("is_new", [True, False])
async def test_the_store_passes_on_every_field_of_an_edge_but_its_time(
    db: Database, is_new: bool
) -> None:
    given = filled(EdgeStats)
    store = PostgresInteroceptionStore(db)
    if not is_new:
        await store.save_edges({pair(0): EdgeStatsFactory.build()})
    await store.save_edges({pair(0): given})
    (loaded,) = (await store.load_edges()).values()
    assert loaded == replace(given, last_seen=loaded.last_seen)
    age = datetime.now(UTC) - datetime.fromisoformat(loaded.last_seen)
    assert age < timedelta(minutes=5)


async def test_an_object_of_qortex_that_lacks_a_newer_field_is_stored(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass(slots=True)
    class NewerStats(EdgeStats):
        colour: str = "red"

    monkeypatch.setattr(interoception, "EdgeStats", NewerStats)
    store = PostgresInteroceptionStore(db)
    await store.save_edges({pair(0): TheirEdgeStats(3, [0.5]), pair(1): NewerStats(4, [0.25])})
    loaded = await store.load_edges()
    assert {key: (one.hit_count, one.scores) for key, one in loaded.items()} == {
        pair(0): (3, [0.5]),
        pair(1): (4, [0.25]),
    }


@pytest.mark.parametrize("is_new", [True, False])
async def test_every_field_of_an_arms_state_is_stored(db: Database, is_new: bool) -> None:
    given = filled(ArmState)
    store = PostgresLearningStore("l", db)
    if not is_new:
        await store.put("a", ArmStateFactory.build())
    await store.put("a", given)
    assert await store.get("a") == given
    assert await store.get_all() == {"a": given}
    assert await store.get_all_states() == {"default": {"a": given}}
    assert ArmState.from_dict(given.to_dict()) == given
