"""Whatever a caller may pass: objects of every kind, and arguments that are nearly right."""

from __future__ import annotations

import datetime as dt
import enum
from array import array
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, Final
from uuid import UUID

import numpy as np
from hypothesis import strategies as st
from pydantic import BaseModel
from sqlalchemy import func, literal, text

from qortex_db import (
    ALL_CONTEXTS,
    HNSW,
    Arm,
    ArmOutcome,
    ArmState,
    EdgeStats,
    LearnerConfig,
    QortexVector,
    SearchHit,
    VectorRecord,
    VectorSpec,
)
from qortex_db.types import SparseVector


class Hostile:
    """Nothing can be asked of it."""

    def _refuse(self, *_: object, **__: object) -> Any:
        raise RuntimeError("hostile")

    __bool__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse  # type: ignore[assignment]
    __hash__ = __len__ = __float__ = __int__ = __index__ = __str__ = _refuse  # type: ignore[assignment]
    __array__ = __dlpack__ = __fspath__ = __contains__ = model_dump = _refuse

    def __repr__(self) -> str:
        return "Hostile()"


class HostileNumber(Hostile, int):  # type: ignore[misc]
    """A number that can't be compared."""


class Endless(str):
    """A text of its own class."""

    __slots__ = ()


class Unordered(float):
    __slots__ = ()

    def __lt__(self, _: object) -> Any:
        return np.array([True, False])

    __gt__ = __le__ = __ge__ = __lt__


class Long(list[Any]):
    """A list that lies about its length."""

    def __len__(self) -> int:
        return 10**6


class Lying(Mapping[Any, Any]):
    """A mapping without what it lists."""

    def __getitem__(self, key: object) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Iterator[Any]:
        return iter(["id", "embedding"])

    def __len__(self) -> int:
        return 2


class Colour(enum.Enum):
    RED = "red"
    NONE = None
    ITSELF = (1, {})


class Level(enum.IntEnum):
    ONE = 1


class Word(enum.StrEnum):
    A = "a"


@dataclass
class Point:
    x: Any = float("nan")


class Model(BaseModel):
    x: Any = float("inf")


class Plain:
    pass


def nested(levels: int, wrap: Any) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value


def circle() -> Any:
    value: dict[str, Any] = {}
    value["a"] = [value]
    return value


OFFSETS: Final = [dt.timezone(dt.timedelta(hours=hours)) for hours in (-23, 0, 23)]
NAIVE: Final = dt.datetime(2025, 1, 1)  # noqa: DTZ001
EARLIEST: Final = [dt.datetime.min.replace(tzinfo=zone) for zone in OFFSETS]
LATEST: Final = [dt.datetime.max.replace(tzinfo=zone) for zone in OFFSETS]
NUMBERS: Final[list[Any]] = [
    0, 1, -1, 2, 7, 40, 2**31 - 1, 2**31, 2**63, -(2**63) - 1, 10**400, -(10**400), 10**5000,
    0.0, -0.0, 0.5, 1.0, -1.5, 1e-320, 1e38, 1e39, 1e300, float("nan"), float("inf"), -float("inf"),
    1j, True, False, Fraction(1, 3), Unordered(0.5), HostileNumber(1),
    Decimal("0.1"), Decimal("NaN"), Decimal("sNaN"), Decimal("-Infinity"), Decimal("1E+999999"),
    Decimal("1E-999999"), Level.ONE,
]  # fmt: skip
NUMPYS: Final[list[Any]] = [
    np.bool_(True), np.int8(1), np.uint64(2**64 - 1), np.float16(0.5), np.float32("nan"),
    np.float64(0.5), np.longdouble("1e4000"), np.complex64(1), np.str_("a"), np.bytes_(b"a"),
    np.datetime64("NaT"), np.datetime64("2025"), np.datetime64("2025-01-01T00:00:00.000000001"),
    np.datetime64(10**17, "s"), np.timedelta64(1, "s"), np.timedelta64("NaT"), np.void(b"ab"),
    np.array(1.0), np.array(True), np.array([]), np.array([True, False]), np.array([1, 2]),
    np.array([1.0] * 8), np.array([1.0] * 8, dtype=object), np.array(["a", "b"]),
    np.array([None, "a"], dtype=object), np.ones((2, 8)), np.ones((0, 8)), np.zeros(8),
    np.array([1e300] * 8), np.array([np.nan] * 8), np.ma.masked_equal([1.0] * 8, 1.0), np.ma.masked,
    np.array([(1, 2.0)], dtype=[("x", "i4"), ("y", "f4")]), np.array(["2025"], "datetime64[D]"),
]  # fmt: skip
TEXTS: Final[list[Any]] = [
    "", "a", "v00001", "x.y", ".", "$", "$eq", "\\", "\x00", "a\x00b", "\ud800", "é", "a" * 300,
    "a" * 1_100, "é" * 600, "-" * 100, "' \" ; --", "%", "{}", "[]", "null", "1", "2025-01-01",
    "0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00", "[1,2]", '["a", "1"]', '["a", "{"]',
    "relaxed", "strict", "average", "best_score", "accepted", "dense", "vec", "thumb", "words",
    Endless("a"), Word.A,
]  # fmt: skip
OTHERS: Final[list[Any]] = [
    None, ..., NotImplemented, object, int, Plain, Plain(), Hostile(), Hostile, ValueError(), len,
    b"", b"12345678", bytearray(b"a"), memoryview(b"ab"), array("d", [1.0] * 8), range(8),
    Path("a"), NAIVE, *EARLIEST, *LATEST, dt.date.min, dt.date.max, dt.time(1), UUID(int=1),
    dt.timedelta.max, dt.timedelta.min, dt.timedelta(0), dt.timedelta(seconds=1),
    Colour.RED, Colour.NONE, Colour.ITSELF, Point(), Model(), MappingProxyType({"a": 1}), Lying(),
    Long([1.0]), SimpleNamespace(), ALL_CONTEXTS, SparseVector({1: 1.0}, 10), VectorSpec(8), HNSW(),
    QortexVector, QortexVector.id == "a", QortexVector.payload, literal(True), func.now(),
    text("true"), np, np.random.default_rng(0), SearchHit("a", 0.5),
]  # fmt: skip
DEEP: Final = 10_000
FRESH: Final[list[Any]] = [
    lambda: iter(()),
    lambda: iter([1, 2]),
    lambda: (n for n in [1.0] * 8),
    lambda: map(str, [1]),
    circle,
    dict,
    list,
    set,
    tuple,
    lambda: nested(200, lambda value: [value]),
    lambda: nested(DEEP, lambda value: [value]),
    lambda: nested(DEEP, lambda value: (value,)),
    lambda: nested(DEEP, lambda value: {"a": value}),
    lambda: nested(DEEP, lambda value: {"$not": value}),
    lambda: nested(DEEP, lambda value: {"$and": [value]}),
    lambda: nested(DEEP, lambda value: {"a": {"$not": value}}),
    lambda: nested(DEEP, lambda value: {"$document": {"$and": [value]}}),
]


def one_of(pool: list[Any]) -> st.SearchStrategy[Any]:
    """By its place: Hypothesis would ask the Hostile for its hash."""
    return st.integers(0, len(pool) - 1).map(lambda place: pool[place])


leaves: st.SearchStrategy[Any] = st.one_of(
    one_of(NUMBERS),
    one_of(NUMPYS),
    one_of(TEXTS),
    one_of(OTHERS),
    one_of(FRESH).map(lambda make: make()),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.datetimes(),
    st.dates(),
    st.decimals(),
    st.uuids(),
)


def _hashable(value: object) -> bool:
    try:
        hash(value)
        return bool(value == value or value != value)  # noqa: PLR0124
    except Exception:  # noqa: BLE001 - the Hostile, and those that hold it
        return False


keys = leaves.filter(_hashable)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    listed = st.lists(inner, max_size=3)
    return st.one_of(
        listed,
        listed.map(tuple),
        listed.map(deque),
        listed.map(iter),
        st.dictionaries(keys, inner, max_size=3),
        st.dictionaries(st.sampled_from(["a", "b", "$gt"]), inner, max_size=3),
        st.frozensets(keys, max_size=3),
        st.builds(np.array, st.lists(st.floats(), max_size=8)),
    )


anything: st.SearchStrategy[Any] = st.recursive(leaves, containers, max_leaves=4)


def nearly(*good: Any) -> st.SearchStrategy[Any]:
    """One of these, or anything."""
    return st.sampled_from(good) | anything


VECTOR: Final = [0.5] * 8
a_vector = nearly(VECTOR, np.array(VECTOR), tuple(VECTOR), [0.5] * 3)
an_id = nearly("a", "v00001", 7)
a_number = nearly(1, 0.5, np.float32(0.25))
a_payload = nearly({"a": 1}) | st.dictionaries(st.sampled_from(["a", "b"]), anything, max_size=2)


def dicts(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({}, optional=fields)


attributes = dicts(
    count=anything, small=anything, ratio=anything, exact=anything, flag=anything, name=anything,
    day=anything, moment=anything, local=anything, clock=anything, span=anything, key=anything,
    raw=anything, notes=anything, tags=anything, levels=anything, colour=anything, other=anything,
)  # fmt: skip
record_fields = {
    "id": an_id,
    "embedding": a_vector,
    "payload": a_payload,
    "document": nearly("text", None),
    "vectors": dicts(thumb=a_vector, words=nearly({1: 0.5}), other=anything) | anything,
    "attributes": attributes | anything,
}
a_record = (
    dicts(**record_fields, other=anything)
    | st.builds(dict, st.fixed_dictionaries(record_fields))
    | st.builds(VectorRecord, **record_fields)
    | st.builds(lambda key, row: {"id": key, "embedding": row}, an_id, a_vector)
)
OPERATORS: Final = [
    "$eq", "$ne", "$in", "$nin", "$gt", "$gte", "$lt", "$lte", "$between", "$exists", "$contains",
    "$any", "$all", "$like", "$ilike", "$text", "$geo", "$size", "$not", "$or", "$prefix", "$regex",
    "$elemMatch",
]  # fmt: skip
WHOLE: Final = ["$and", "$or", "$nor", "$not", "$id", "$text", "$document", "$min_should"]
a_regex = st.text(r"ab.^$*+?{}[]()|\\,:-dwsbAZ012", max_size=12).map(lambda text: {"$regex": text})
a_condition = (
    st.dictionaries(st.sampled_from(OPERATORS), anything | st.lists(anything), max_size=2) | a_regex
)
a_place = dicts(
    lat=a_number, lon=a_number, radius_m=a_number, min_lat=a_number, max_lat=a_number,
    min_lon=a_number, max_lon=a_number,
)  # fmt: skip
a_ring = st.lists(dicts(lat=a_number, lon=a_number), max_size=4) | anything
a_place |= dicts(exterior=a_ring, interiors=st.lists(a_ring, max_size=2) | anything)
a_filter = st.recursive(
    st.dictionaries(
        st.sampled_from(["a", "a.0", "place", "x.y", "é", "a[]", "a[].b", "a[][]", "[]"]) | keys,
        anything | a_condition | st.builds(lambda place: {"$geo": place}, a_place),
        max_size=2,
    )
    | st.dictionaries(st.sampled_from(WHOLE), anything, max_size=2)
    | nearly({"a": 1}, QortexVector.id == "a"),
    lambda inner: (
        st.dictionaries(st.sampled_from(WHOLE), st.lists(inner, max_size=2) | inner, max_size=2)
        | st.builds(lambda part: {"a": {"$elemMatch": part}}, inner)
        | dicts(conditions=st.lists(inner, max_size=3) | anything, min_count=a_number).map(
            lambda least: {"$min_should": least}
        )
    ),
    max_leaves=3,
)
a_document = st.dictionaries(st.sampled_from(["$contains", "$not_contains", "$and"]), anything)
a_state = st.builds(ArmState, a_number, a_number, a_number, a_number, nearly("")) | st.builds(
    SimpleNamespace, alpha=a_number, beta=a_number, pulls=a_number
)
an_edge = st.builds(EdgeStats, a_number, st.lists(a_number, max_size=2) | anything, nearly(""))
a_pair = st.tuples(an_id, an_id) | anything
an_arm = st.builds(Arm, an_id, a_number, nearly({})) | an_id
an_outcome = st.builds(ArmOutcome, an_id, a_number, nearly("accepted", ""), a_payload) | anything


def mapping_of(
    key: st.SearchStrategy[Any], value: st.SearchStrategy[Any]
) -> st.SearchStrategy[Any]:
    return st.dictionaries(key.filter(_hashable), value, max_size=2) | anything


def listed(of: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(of, max_size=3) | anything


BY_NAME: Final[dict[str, st.SearchStrategy[Any]]] = {
    "with_payload": listed(
        nearly(
            "a",
            "a.b",
            "$document",
            QortexVector.created_at,
            {"$column": ["updated_at"]},
            {"$payload": "a"},
        )
    ),
    "paths": mapping_of(
        nearly("a", "a.b", QortexVector.created_at), listed(nearly("min", "count"))
    ),
    "arm_id": an_id,
    "arm_ids": listed(an_id),
    "buffer": mapping_of(st.tuples(an_id, an_id), an_edge),
    "candidates": listed(an_arm),
    "config": st.builds(LearnerConfig, an_id, a_number, a_number, listed(an_id), a_number)
    | anything,
    "context": a_payload,
    "deltas": mapping_of(an_id, st.tuples(a_number, a_number) | a_payload),
    "edges": mapping_of(st.tuples(an_id, an_id), an_edge),
    "embedding": a_vector,
    "embeddings": listed(a_vector),
    "factors": mapping_of(an_id, a_number),
    "id": an_id,
    "ids": listed(an_id),
    "keys": listed(a_pair),
    "negative": listed(a_vector | an_id),
    "node_ids": listed(an_id),
    "observations": listed(st.tuples(an_id, a_number) | st.tuples(an_id, an_id, a_number)),
    "on_error": nearly("raise", "skip"),
    "outcome": an_outcome,
    "outcomes": listed(an_outcome) | mapping_of(an_id, nearly("accepted")),
    "payload": a_payload,
    "positive": listed(a_vector | an_id),
    "query_embedding": a_vector,
    "records": listed(a_record),
    "seed_ids": listed(an_id),
    "sparse": nearly({1: 0.5}) | mapping_of(a_number, a_number),
    "state": a_state | anything,
    "values": a_payload,
    "vectors": record_fields["vectors"],
    "attributes": record_fields["attributes"],
    "weights": mapping_of(nearly("dense", "text", "a"), a_number),
    "branch_limit": mapping_of(nearly("dense", "text"), a_number),
    "match": nearly("any", "all", "phrase", "websearch"),
    "text": nearly("red or -apple") | st.text(),
    "where": a_filter,
    "where_document": a_document | anything,
}
"""What a parameter of this name is nearly; anything where it has none."""


async def _count(uow: Any) -> int:
    count: int = await uow.vectors.count()
    return count


GOOD: Final[dict[str, Any]] = {
    "arm_id": "a",
    "arm_ids": ["a"],
    "buffer": {("a", "b"): EdgeStats(1, [0.5])},
    "candidates": [Arm("a"), Arm("b", 1)],
    "config": LearnerConfig("l"),
    "deltas": {"a": (1.0, 0.0)},
    "edges": {("a", "b"): EdgeStats(1, [0.5])},
    "embedding": VECTOR,
    "embeddings": [VECTOR],
    "factors": {"a": 1.0},
    "group_by": "a",
    "half_life": 5.0,
    "id": "a",
    "ids": ["a"],
    "into": "v2",
    "key": "k",
    "keys": [("a", "b")],
    "learner": "l",
    "min_score": 0.5,
    "model": QortexVector,
    "name": "m",
    "node_id": "a",
    "node_ids": ["a"],
    "observations": [("a", 0.5)],
    "outcome": ArmOutcome("a", 1.0),
    "outcomes": {"a": "accepted"},
    "path": "a",
    "positive": [VECTOR],
    "query": "q",
    "query_embedding": VECTOR,
    "records": [{"id": "a", "embedding": VECTOR}],
    "reward": 0.5,
    "score": 0.5,
    "seed_ids": ["a"],
    "session_id": "s",
    "session_name": "s",
    "src": "a",
    "state": ArmState(),
    "texts": ["a"],
    "tgt": "b",
    "weight": 1.0,
    "weights": {"a": 1.0},
    "work": _count,
}
"""What a method takes for a parameter of this name that it has to be given."""

_SHORT: Final = [0.5] * 3
_LONG: Final = "more than eight bytes"
BEYOND: Final[dict[str, list[Any]]] = {
    "arm_ids": [["a", "b"]],
    "buffer": [{("a", "b"): EdgeStats(), ("a", "c"): EdgeStats()}],
    "candidates": [["a", "b"]],
    "context": [{"task": _LONG}],
    "deltas": [{"a": (1.0, 0.0), "b": (1.0, 0.0)}],
    "document": [_LONG],
    "edges": [{("a", "b"): EdgeStats(), ("a", "c"): EdgeStats()}],
    "embedding": [_SHORT],
    "embeddings": [[VECTOR] * 3, [_SHORT]],
    "factors": [{"a": 1.0, "b": 1.0}],
    "ids": [["a", "b"]],
    "keys": [[("a", "b"), ("a", "c")]],
    "node_ids": [["a", "b"]],
    "observations": [[("a", 0.5), ("b", 0.5)], [("a", "b", 0.5), ("a", "c", 0.5)]],
    "outcomes": [{"a": "accepted", "b": "accepted"}, [ArmOutcome("a", 1.0), ArmOutcome("b", 1.0)]],
    "payload": [{"a": _LONG}],
    "positive": [[_SHORT], ["unknown"]],
    "query_embedding": [_SHORT],
    "records": [
        [{"id": name, "embedding": VECTOR} for name in "ab"],
        [{"id": "a", "embedding": _SHORT}],
        [{"id": "a", "embedding": VECTOR, "payload": {"a": _LONG}}],
    ],
    "seed_ids": [["a", "b"]],
    "texts": [["a", "b"], [_LONG]],
    "values": [{"a": _LONG}],
    "vectors": [{"thumb": _SHORT}],
    "weights": [{"a": 1.0, "b": 1.0}],
    "where": [{"a": {"$in": [1, 2, 3]}}],
    "where_document": [{"$or": [{"$contains": "red"}, {"$contains": "green"}]}],
}
"""What is right but for its length, or is more than the smallest limits allow."""
