"""The one form that a Python value has in payloads, filters, contexts and JSON columns."""

from __future__ import annotations

import enum
import json
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, RootModel
from sqlalchemy import JSON, MetaData, event, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import Collection, Database, InvalidInputError, VectorMixin, VectorSpec
from qortex_db.testing.factories import VectorRecordFactory
from qortex_db.values.jsonable import to_canonical_json, to_json

BERLIN = timezone(timedelta(hours=1))
EVERY_DIGIT = Decimal("0.1000000000000000055511151231257827")


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Word(enum.StrEnum):
    YES = "yes"


class Price(enum.Enum):
    LOW = Decimal("9.990")


@dataclass
class Author:
    name: str
    born: date
    tags: list[Colour] = field(default_factory=list)


class Publisher(BaseModel):
    name: str
    since: date
    prices: dict[str, Decimal] = {}


Ints = RootModel[list[int]]
Point = namedtuple("Point", "x y")  # noqa: PYI024

FORMS: dict[str, tuple[Any, str]] = {
    "None": (None, "null"),
    "a bool": (True, "true"),
    "an int": (7, "7"),
    "a large int": (10**400, "1" + "0" * 400),
    "a float": (1e16, "1e+16"),
    "text": ('"é\\\n', '"\\"é\\\\\\n"'),
    "a list": ([1, [None]], "[1,[null]]"),
    "a tuple": ((1, "a"), '[1,"a"]'),
    "a named tuple": (Point(1, 2), "[1,2]"),
    "a mapping": (MappingProxyType({"a": 1}), '{"a":1}'),
    "a subclass of dict": (OrderedDict(a=1), '{"a":1}'),
    "numpy's bool": (np.True_, "true"),
    "numpy's int": (np.int64(-7), "-7"),
    "numpy's uint8": (np.uint8(7), "7"),
    "numpy's float64": (np.float64(0.1), "0.1"),
    "numpy's float32": (np.float32(0.5), "0.5"),
    "numpy's float16": (np.float16(0.1), "0.0999755859375"),
    "numpy's longdouble": (np.longdouble(0.5), "0.5"),
    "numpy's text": (np.str_("a"), '"a"'),
    "numpy's date": (np.datetime64("2025-01-31"), '"2025-01-31"'),
    "numpy's time": (np.datetime64("2025-01-31T12:00:00"), '"2025-01-31T12:00:00"'),
    "numpy's time in ns": (np.datetime64("2025-01-31T12:00:00", "ns"), '"2025-01-31T12:00:00"'),
    "numpy's nanosecond": (
        np.datetime64("2025-01-31T12:00:00.000000001"),
        '"2025-01-31T12:00:00.000000001"',
    ),
    "an array": (np.array([[1, 2], [3, 4]], dtype=np.int8), "[[1,2],[3,4]]"),
    "an array of a number": (np.array(7.5), "7.5"),
    "an array of times": (np.array(["2025-01-31"], "datetime64[ns]"), '["2025-01-31T00:00:00"]'),
    "a decimal": (EVERY_DIGIT, str(EVERY_DIGIT)),
    "a decimal with zeros": (Decimal("1.10"), "1.10"),
    "a decimal with an exponent": (Decimal("-1E+30"), "-1E+30"),
    "a date": (date(2025, 1, 31), '"2025-01-31"'),
    "a time": (datetime(2025, 1, 31, 12, tzinfo=UTC), '"2025-01-31T12:00:00+00:00"'),
    "a time of an offset": (
        datetime(2025, 1, 31, 12, 0, 0, 5, BERLIN),
        '"2025-01-31T12:00:00.000005+01:00"',
    ),
    "a naive time": (datetime(2025, 1, 31), '"2025-01-31T00:00:00"'),  # noqa: DTZ001
    "a time of day": (time(12, 30), '"12:30:00"'),
    "a UUID": (UUID(int=7), '"00000000-0000-0000-0000-000000000007"'),
    "an enum": (Colour.RED, '"red"'),
    "an int enum": (Level.HIGH, "3"),
    "a text enum": (Word.YES, '"yes"'),
    "an enum of a decimal": (Price.LOW, "9.990"),
    "a dataclass": (
        Author("Lem", date(1921, 9, 12), [Colour.RED]),
        '{"name":"Lem","born":"1921-09-12","tags":["red"]}',
    ),
    "a model": (
        Publisher(name="MON", since=date(1947, 1, 1), prices={"pln": EVERY_DIGIT}),
        f'{{"name":"MON","since":"1947-01-01","prices":{{"pln":{EVERY_DIGIT}}}}}',
    ),
    "a root model": (Ints([1, 2]), "[1,2]"),
}


class Moody:
    def model_dump(self, **_: object) -> object:
        raise RuntimeError("s3cret")


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": [value]}
    return value


def circle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


REFUSED: dict[str, tuple[Any, str]] = {
    "NaN": ({"a": [1, float("nan")]}, r"^payload\.a\[1\] is nan, which JSON can't say\.$"),
    "infinity": (float("-inf"), "^payload is -inf, which"),
    "numpy's NaN": ({"a": np.float32("nan")}, r"payload\.a is nan"),
    "a decimal NaN": (Decimal("NaN"), "payload is NaN"),
    "a decimal infinity": (Decimal("-Infinity"), "payload is -Infinity"),
    "a decimal of many digits": (Decimal("1E+5000"), "4,300 digits before the point"),
    "a decimal of many places": (Decimal("1E-20000"), "16,383 behind it"),
    "an int of many digits": (10**5000, "4,300 digits"),
    "a number as key": ({"a": {1: 2}}, r"^payload\.a has a key of type int; pass strings\.$"),
    "None as key": ({None: 2}, "^payload has a key of type NoneType"),
    "NUL in a key": ({"a\x00": 2}, "^payload has a key that contains NUL"),
    "NUL": ({"a": "\x00"}, r"^payload\.a contains NUL"),
    "a lone surrogate": ({"a": ["\ud800"]}, r"^payload\.a\[0\] contains a lone surrogate"),
    "bytes": ({"a": b"x"}, r"^payload\.a is a bytes, which JSON can't say; pass text"),
    "a set": ({"a": {1}}, r"^payload\.a is a set, which JSON can't say; pass a list\.$"),
    "a generator": ({"a": (n for n in ())}, r"is a generator, which JSON can't say; pass a list"),
    "a span": ({"a": timedelta(1)}, "is a timedelta, which JSON can't say; pass its seconds"),
    "numpy's span": (np.timedelta64(1, "s"), "is a timedelta64, .*; pass its seconds"),
    "no time": ([np.datetime64("NaT")], r"payload\[0\] is no time \(NaT\)"),
    "a complex number": (1j, "is a complex, which JSON can't say"),
    "numpy's complex number": (np.complex64(1), "is a complex64, which JSON can't say"),
    "a masked array": (np.ma.masked_equal([1, 2], 1), "masked array"),
    "an object": ({"a": object()}, "is a object, which JSON can't say"),
    "a class": ({"a": Author}, "is a type, which JSON can't say"),
    "a model that fails": ({"a": Moody()}, r"is a Moody that can't be read \(RuntimeError\)\.$"),
    "too deep": (deep(60), r"….* is nested more than 100 levels deep"),
    "a circle": (circle(), "nested more than 100 levels deep"),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_value_has_one_form(name: str) -> None:
    value, form = FORMS[name]
    assert to_json(value, name="payload") == form
    assert to_json({"a": [value]}, name="payload") == f'{{"a":[{form}]}}'
    assert json.loads(to_canonical_json({"a": value}, name="context")) == json.loads(
        f'{{"a":{form}}}'
    )


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_none_is_refused_by_its_place(name: str) -> None:
    value, message = REFUSED[name]
    for write in (to_json,) if "NUL" in name else (to_json, to_canonical_json):
        with pytest.raises(InvalidInputError, match=message) as caught:
            write(value, name="payload")
        assert "s3cret" not in str(caught.value)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # NUL and lone surrogates are refused
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])), inner
        )
    ),
)


@given(plain)
def test_what_json_says_is_said_as_json_does(value: Any) -> None:
    assert json.loads(to_json(value, name="x")) == value
    # Stored keys of arms depend on these bytes.
    assert to_canonical_json(value, name="x") == json.dumps(
        value, sort_keys=True, separators=(",", ":")
    )


class Base(DeclarativeBase):
    metadata = MetaData()


class Odd(VectorMixin, Base):
    __tablename__ = "odd"
    __collection__ = Collection(VectorSpec(8))

    notes: Mapped[Any | None] = mapped_column(JSONB)
    plain: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))


# What a datetime in a filter means, and None, is told on the page of filters.
IN_FILTERS = [
    name
    for name, (value, _) in FORMS.items()
    if value is not None and not isinstance(value, datetime) and name != "a large int"
]


@pytest.fixture(params=["by itself", "watched", "in a unit of work"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_value_is_stored_in_its_form_by_every_write_and_found_by_itself(
    db: Database, lane: str
) -> None:
    async with db.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    payload = {name: value for name, (value, _) in FORMS.items()}
    records = VectorRecordFactory.build_batch(3, dimensions=8)

    async def write(of: Any) -> None:
        vectors = of.collection(Odd)
        rows: list[dict[str, Any]] = [
            {"id": record.id, "embedding": record.embedding} for record in records
        ]
        rows[0] |= {"payload": payload, "attributes": {"notes": payload, "plain": payload}}
        assert await vectors.upsert(rows) == 3
        assert await vectors.update("v00001", payload=payload, attributes={"notes": payload})
        assert await vectors.merge_payload(payload, ids=["v00002"]) == 1
        for name in IN_FILTERS:
            value = FORMS[name][0]
            assert await vectors.count(where={name: {"$eq": value}}) == 3, name
            assert await vectors.count(where={name: {"$in": [value]}}) == 3, name
            assert await vectors.count(where={name: {"$in": ["x", 5, value]}}) == 3, name
            assert await vectors.count(where={name: {"$ne": value}}) == 0, name

    if lane == "in a unit of work":
        async with db.unit_of_work() as uow:
            await write(uow)
    elif lane == "watched":
        event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
        await write(db)
    else:
        await write(db)

    members = ",".join(f"{json.dumps(name)}:{form}" for name, (_, form) in FORMS.items())
    form = f"{{{members}}}"
    async with db.engine.connect() as connection:
        rows = await connection.execute(
            text(
                "SELECT payload = CAST(:form AS jsonb) AS same, payload::text AS payload,"
                " notes = payload OR id = 'v00002' AS noted, plain::text AS plain"
                " FROM odd ORDER BY id"
            ),
            {"form": form},
        )
        found = rows.all()
    assert [(row.same, row.noted) for row in found] == [(True, True)] * 3
    assert all(str(EVERY_DIGIT) in row.payload and "1.10" in row.payload for row in found)
    assert found[0].plain == form
    read = (await db.collection(Odd).get(["v00000"]))["v00000"].payload
    assert read is not None
    assert read["a decimal"] == float(EVERY_DIGIT)  # as JSON is read
    assert read["a large int"] == 10**400


async def test_filters_compare_with_a_value_as_it_is_stored(db: Database) -> None:
    first, second = VectorRecordFactory.build_batch(2, dimensions=8)
    payloads: list[dict[str, Any]] = [
        {"price": Decimal("9.99"), "day": date(2025, 1, 31), "ok": True, "kinds": ["red", 3]},
        {"price": 10.5, "day": "2025-02-01", "ok": False, "kinds": []},
    ]
    rows = [
        {"id": row.id, "embedding": row.embedding, "payload": payload}
        for row, payload in zip((first, second), payloads, strict=True)
    ]
    await db.vectors.upsert(rows)
    place = {"lat": np.float32(52.5), "lon": Decimal("13.4")}
    await db.vectors.merge_payload({"place": place, "at": time(12)}, ids=[first.id])
    for where in (
        {"price": Decimal("9.990")},
        {"price": np.float64(9.99)},
        {"price": {"$lt": np.int8(10)}},
        {"price": {"$between": [Decimal("9.9"), np.float32(10)]}},
        {"price": {"$in": np.array([9.99, 1])}},
        {"day": {"$lte": np.datetime64("2025-01-31")}},
        {"day": date(2025, 1, 31)},
        {"ok": np.True_},
        {"ok": {"$in": {np.True_}}},
        {"kinds": {"$contains": Colour.RED}},
        {"kinds": {"$any": [Level.HIGH]}},
        {"kinds": {"$all": [Colour.RED, np.int16(3)]}},
        {"kinds": (Colour.RED, Level.HIGH)},
        {"at": time(12)},
        {"at": {"$exists": np.True_}},
        {"place": {"$geo": place | {"radius_m": np.int64(1)}}},
    ):
        assert await db.vectors.count(where=where) == 1, where


async def test_a_refusal_names_row_and_key(db: Database) -> None:
    rows: list[Any] = VectorRecordFactory.build_batch(3, dimensions=8)
    rows[1] = {"id": "b", "embedding": rows[1].embedding, "payload": {"a": [1, float("nan")]}}
    with pytest.raises(InvalidInputError, match=r"payload of row 1 \(id 'b'\)\.a\[1\] is nan"):
        await db.vectors.upsert(rows)
    assert await db.vectors.count() == 0
