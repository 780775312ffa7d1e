"""What is counted at a path: any values, however they are mixed, as counting row by row has it."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from qortex_db import Database, Settings, migrations
from support.compilations import compilations

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

# Each row's elements, then each row of them once: slow, and beyond doubt.
BY_ROW = """
SELECT element.value::text, count(DISTINCT id) FROM (
    SELECT id, payload, payload #> CAST(:steps AS text[]) AS value FROM qortex_vectors
) AS rows JOIN LATERAL jsonb_array_elements(
    CASE jsonb_typeof(value) WHEN 'array' THEN value ELSE jsonb_build_array(value) END
) AS element (value) ON true
WHERE rows.value IS NOT NULL AND payload @> CAST(:having AS jsonb)
GROUP BY element.value ORDER BY 2 DESC, element.value
"""
SCALARS = (None, True, False, 0, 1, 1.0, -1.5, 10**20, "", "1", "a", "ä", "null", 'say "a"')


def value(rng: random.Random, depth: int = 0) -> Any:
    """One of few, so that they meet."""
    kind = rng.random()
    if kind < 0.6 or depth == 3:
        return rng.choice(SCALARS)
    if kind < 0.85:  # elements come twice
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {key: value(rng, depth + 1) for key in rng.sample(["x", "0", "y.z"], rng.randrange(3))}


def payload(rng: random.Random, kinds: str) -> dict[str, Any]:
    made: dict[str, Any] = {"even": rng.random() < 0.5, "scalar": rng.choice(SCALARS)}
    if rng.random() < 0.5:
        made["some"] = rng.choice(SCALARS)
    if kinds != "scalars":
        made |= {"any": value(rng), "few": [value(rng, 3), value(rng, 3)], "none": []}
    return made


async def by_row(engine: AsyncEngine, steps: list[str], having: dict[str, Any]) -> list[Any]:
    async with engine.connect() as connection:
        params = {"steps": steps, "having": json.dumps(having)}
        rows = (await connection.execute(text(BY_ROW), params)).all()
    return [(typed(json.loads(one)), count) for one, count in rows]


def typed(found: Any) -> Any:
    """A value that equals no other of Python's that JSON tells from it: 1 is 1.0, and not true."""
    if isinstance(found, dict):
        return {key: typed(item) for key, item in found.items()}
    if isinstance(found, list):
        return [typed(item) for item in found]
    return (type(found) is bool, found)


@pytest.mark.slow
async def test_any_values_are_counted_as_row_by_row(each_empty_dsn: str) -> None:
    rng = random.Random(16)  # noqa: S311 - no secret
    await migrations.upgrade(Settings(dsn=each_empty_dsn, dimensions=2))
    async with Database.connect(each_empty_dsn) as db:
        for count, kinds in ((700, "scalars"), (3, "any"), (700, "any")):
            rows = [
                {"id": f"{kinds}{count} {i}", "embedding": [1, i], "payload": payload(rng, kinds)}
                for i in range(count)
            ]
            await db.vectors.upsert([*rows, {"id": kinds, "embedding": [1, 0]}])
            for where in (None, {"even": True}, {"even": "neither"}):
                for path in ("scalar", "some", "any", "few", "none", "even", "any.x", "any.0"):
                    for extra in ("", r".y\.z"):
                        steps = [*path.split("."), "y.z"] if extra else path.split(".")
                        right = await by_row(db.engine, steps, where or {})
                        found = await db.vectors.facet(path + extra, where=where, limit=10_000)
                        assert [(typed(one.value), one.count) for one in found] == right
                        few = await db.vectors.facet(path + extra, where=where, limit=3)
                        assert [(typed(one.value), one.count) for one in few] == right[:3]
        assert [one.count for one in await db.vectors.facet("few", limit=1)] > [100]


async def test_what_has_no_arrays_is_read_once_and_taken_apart_never(dsn: str) -> None:
    async with Database.connect(dsn) as db:
        sql = compilations(db.engine)
        for payload, parts in (({"k": "a"}, 0), ({"k": ["a", "b"]}, 1)):
            await db.vectors.upsert([{"id": "a", "embedding": [1] * 8, "payload": payload}])
            await db.vectors.facet("k")
            statement = next(one for one in sql if "facet" in one or "found" in one)
            async with db.engine.connect() as connection:
                asked = f"EXPLAIN (ANALYZE, COSTS OFF, FORMAT JSON) {statement}"
                plan = (await connection.exec_driver_sql(asked, (10,))).scalar_one()
            nodes = list(walk(plan[0]["Plan"]))
            scans = [one for one in nodes if one.get("Relation Name") == "qortex_vectors"]
            assert [one["Actual Loops"] for one in scans] == [1]
            taken_apart = [one for one in nodes if one["Node Type"] == "ProjectSet"]
            assert [one["Actual Loops"] for one in taken_apart] == [parts]


def walk(node: dict[str, Any]) -> Any:
    yield node
    for below in node.get("Plans", ()):
        yield from walk(below)
