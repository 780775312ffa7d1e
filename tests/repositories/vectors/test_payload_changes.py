"""`merge_payload`: what is put in and what is taken out are named by paths, as in filters."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qortex_db import InvalidInputError

if TYPE_CHECKING:
    from qortex_db import Database
    from qortex_db.repositories import VectorRepository

pytestmark = pytest.mark.slow

GOOD = [1.0] * 8
# fmt: off
CASES: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "a key in an object": (
        {"b": {"c": 1, "d": 3}},
        {"values": {"b.c": 2}},
        {"b": {"c": 2, "d": 3}},
    ),
    "a new key in one": ({"b": {"d": 3}}, {"values": {"b.c": 2}}, {"b": {"c": 2, "d": 3}}),
    "what is missing": ({"a": 1}, {"values": {"b.c.d": 2}}, {"a": 1, "b": {"c": {"d": 2}}}),
    "no object": ({"b": 7}, {"values": {"b.c": 2}}, {"b": {"c": 2}}),
    "null": ({"b": None}, {"values": {"b.c": None}}, {"b": {"c": None}}),
    "an array and a key": ({"b": [1]}, {"values": {"b.c": 2}}, {"b": {"c": 2}}),
    "an element": ({"b": [1, 2, 3]}, {"values": {"b.1": 9}}, {"b": [1, 9, 3]}),
    "in an element": ({"b": [1, {"c": 2}]}, {"values": {"b.1.c": 9}}, {"b": [1, {"c": 9}]}),
    "after the end": ({"b": [1]}, {"values": {"b.5": 9}}, {"b": [1, 9]}),
    "a digit as a key": ({"b": {"1": 2}}, {"values": {"b.1": 9}}, {"b": {"1": 9}}),
    "several": (
        {"b": {"c": 1, "x": 0}},
        {"values": {"b.c": 2, "b.d.e": 3, "b.d.f": 4, "a": {"z": 1}}},
        {"a": {"z": 1}, "b": {"c": 2, "d": {"e": 3, "f": 4}, "x": 0}},
    ),
    "an object whole": ({"b": {"c": 1, "d": 2}}, {"values": {"b": {"e": 1}}}, {"b": {"e": 1}}),
    "a dot of a key's own": ({"b": {"c": 1}}, {"values": {r"b\.c": 2}}, {"b": {"c": 1}, "b.c": 2}),
    "out and in": (
        {"b": {"c": 1, "d": 2}},
        {"values": {"b.e": 3}, "remove": ["b.c"]},
        {"b": {"d": 2, "e": 3}},
    ),
    "all of it out, one in": (
        {"b": {"c": 1}},
        {"values": {"b.e": 3}, "remove": ["b"]},
        {"b": {"e": 3}},
    ),
    "in and out by one name": (
        {"b": {"c": 1}},
        {"values": {"b.c": 3}, "remove": ["b.c"]},
        {"b": {"c": 3}},
    ),
    "out of an object": ({"b": {"c": 1, "d": 2}}, {"remove": ["b.c", "x.y"]}, {"b": {"d": 2}}),
    "out of an array": (
        {"b": [1, 2], "d": 1},
        {"remove": ["b.0", "b.c", "d.e"]},
        {"b": [2], "d": 1},
    ),
    "a null out": ({"b": {"c": None}}, {"remove": ["b.c"]}, {"b": {}}),
    "a dotted key out": ({"b.c": 1, "b": {"c": 2}}, {"remove": [r"b\.c"]}, {"b": {"c": 2}}),
}
# fmt: on


@pytest.mark.parametrize("lane", ["alone", "together"])
async def test_paths_name_what_is_put_in_and_what_is_taken_out(db: Database, lane: str) -> None:
    async def check(vectors: VectorRepository) -> None:
        for name, (payload, change, expected) in CASES.items():
            for by in ({"ids": ["a"]}, {"where": {"$id": "a"}}):
                await vectors.upsert([{"id": "a", "embedding": GOOD, "payload": payload}])
                await vectors.merge_payload(**change, **by)
                assert (await vectors.get(["a"]))["a"].payload == expected, name
                if "remove" not in change:  # what would not change is left alone
                    again = 1 if name == "after the end" else 0
                    assert await vectors.merge_payload(**change, **by) == again, name

    if lane == "alone":
        await check(db.vectors)
    else:
        async with db.unit_of_work() as uow:
            await check(uow.vectors)


@pytest.mark.parametrize(
    "values",
    [
        {"b": 1, "b.c": 2},
        {"b.c": 1, "b.c.d": 2},
        {"b": {"c": 1}, "b.c": 2},
        {"a..b": 1},
        {"": 1},
        {"a\\": 1},
        {f"a.{n}": 1 for n in range(65)},
        {"a.b": float("nan")},
        {"a\x00.b": 1},
    ],
)
async def test_paths_that_meet_or_are_none_are_refused(db: Database, values: Any) -> None:
    with pytest.raises(InvalidInputError):
        await db.vectors.merge_payload(values, ids=["a"])


async def test_a_long_path_and_many_of_them_are_put_in(db: Database) -> None:
    deep = ".".join("abcdefgh" * 4)
    many = {f"x{n % 4}.y{n}": n for n in range(16)}
    out = [f"z.{n}" for n in range(12)]
    await db.vectors.upsert([{"id": "a", "embedding": GOOD}])
    assert await db.vectors.merge_payload({deep: 1} | many, remove=out, ids=["a"]) == 1
    payload: Any = (await db.vectors.get(["a"]))["a"].payload
    assert payload["x2"]["y14"] == 14
    for step in deep.split("."):
        payload = payload[step]
    assert payload == 1
    assert await db.vectors.count(where={deep: 1, "x2.y14": 14}) == 1


KEYS = st.sampled_from("abc")
VALUES = st.recursive(
    st.integers(0, 3) | st.none(), lambda inner: st.dictionaries(KEYS, inner), max_leaves=6
)
PATHS = st.lists(KEYS, min_size=1, max_size=3).map(tuple)


def merged(payload: dict[str, Any], put: dict[tuple[str, ...], Any], out: list[Any]) -> Any:
    result = copy.deepcopy(payload)
    for path in out:
        at: Any = result
        for step in path[:-1]:
            at = at.get(step) if isinstance(at, dict) else None
        if isinstance(at, dict):
            at.pop(path[-1], None)
    for path, value in put.items():
        at = result
        for step in path[:-1]:
            if not isinstance(at.get(step), dict):
                at[step] = {}
            at = at[step]
        at[path[-1]] = value
    return result


@pytest.mark.slow
async def test_changes_are_those_of_python(db: Database) -> None:
    import asyncio  # noqa: PLC0415

    loop = asyncio.get_running_loop()

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.dictionaries(KEYS, VALUES),
        st.dictionaries(PATHS, VALUES, max_size=4),
        st.lists(PATHS, max_size=3),
    )
    def check(payload: Any, put: Any, out: Any) -> None:
        put = {
            path: value
            for path, value in put.items()
            if not any(path[:i] in put for i in range(1, len(path)))
        }
        if put or out:
            asyncio.run_coroutine_threadsafe(compare(payload, put, out), loop).result(60)

    async def compare(payload: Any, put: Any, out: Any) -> None:
        await db.vectors.upsert([{"id": "a", "embedding": GOOD, "payload": payload}])
        values = {".".join(path): value for path, value in put.items()}
        await db.vectors.merge_payload(values, remove=[".".join(path) for path in out], ids=["a"])
        assert (await db.vectors.get(["a"]))["a"].payload == merged(payload, put, out)

    await asyncio.to_thread(check)
