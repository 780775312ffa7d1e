"""Parts of payloads, in every search and read, as Python takes them out."""

from __future__ import annotations

import enum
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import ARRAY, DateTime, Numeric, Text, event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import Collection, Database, FieldBoost, InvalidInputError, VectorMixin, VectorSpec
from support.compilations import compilations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence


class Base(DeclarativeBase):
    """A host's own."""


class Mood(enum.Enum):
    CALM = "calm"
    WILD = "wild"


class Shared(VectorMixin, Base):
    __tablename__ = "shared"
    __collection__ = Collection(
        VectorSpec(8), namespace="tenant", encrypted=("secret",), encrypted_document=True
    )

    year: Mapped[int | None]
    price: Mapped[Decimal | None] = mapped_column(Numeric(8, 2))
    seen: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    mood: Mapped[Mood | None]
    tags: Mapped[list[str] | None] = mapped_column(ARRAY(Text))


class Bare(Base):
    """A table without a payload, whose columns are called otherwise."""

    __tablename__ = "bare"
    __collection__ = Collection(VectorSpec(8, column="emb"), document="body")

    number: Mapped[int] = mapped_column(primary_key=True)
    emb: Mapped[Any] = mapped_column(VectorSpec(8).type)
    body: Mapped[str | None]
    n: Mapped[int | None]
    document: Mapped[float | None]


Q = [1.0] * 8
VALUES: tuple[Any, ...] = (None, 0, False, "", "x.y", [], [{"b": 1}], {}, {"b": None}, {"b": [1]})


def payload(number: int) -> dict[str, Any]:
    value = VALUES[number % len(VALUES)]
    made = {"a": value, "n": number, "x.y": {"0": "zero", "it's": 1, "rest": "…"}}
    made["deep"] = {"er": {"a": value, "b": number, "c": "c"}, "other": [number]}
    if number % 3:
        made["secret"] = {"of": number}
    if number % 4 == 0:
        del made["a"]
    return made


PAYLOADS = {f"v{number:03}": payload(number) for number in range(60)}
PATHS = ["a.b", "deep.er.a", "deep.er.b", "deep.er.b.c", "n", r"x\.y.it's", r"x\.y.0", "missing"]


def parts(whole: Any, paths: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key in {path[0] for path in paths}:
        rest = [path[1:] for path in paths if path[0] == key]
        if key in whole and () in rest:
            made[key] = whole[key]
        elif isinstance(whole.get(key), dict):
            made[key] = parts(whole[key], rest)
    return made


STEPS = [("a", "b"), ("deep", "er", "a"), ("deep", "er", "b"), ("n",), ("x.y", "it's")]
STEPS += [("x.y", "0"), ("missing",)]


async def listed(rows: Any) -> list[Any]:
    return [row async for row in rows]


async def grouped(v: Any, **o: Any) -> Any:
    groups = await v.search_groups(Q, "n", limit=5, **o)
    return [hit for group in groups for hit in group.hits]


async def every_answer(v: Any, **o: Any) -> Any:
    return [hit for answer in await v.search_many([Q, Q], **o) for hit in answer]


CALLS: dict[str, Callable[..., Any]] = {
    "search": lambda v, **o: v.search(Q, limit=60, **o),
    "with embeddings": lambda v, **o: v.search(Q, exact=True, with_embedding=True, **o),
    "with a filter": lambda v, **o: v.search(Q, where={"n": {"$gt": 5}}, offset=2, **o),
    "boosted": lambda v, **o: v.search(Q, boost=[FieldBoost("n")], **o),
    "range_search": lambda v, **o: v.range_search(Q, min_score=-1, **o),
    "mmr_search": lambda v, **o: v.mmr_search(Q, **o),
    "search_groups": grouped,
    "hybrid_search": lambda v, **o: v.hybrid_search(Q, **o),
    "multi_search": lambda v, **o: v.multi_search([Q, Q], **o),
    "by count": lambda v, **o: v.multi_search([Q, Q], rank="count", **o),
    "search_many": every_answer,
    "recommend": lambda v, **o: v.recommend([Q], **o),
    "by best score": lambda v, **o: v.recommend([Q], strategy="best_score", **o),
    "stream_search": lambda v, **o: listed(v.stream_search(Q, batch_size=50, **o)),
}
READS: dict[str, Callable[..., Any]] = {
    "get": lambda v, **o: v.get(list(PAYLOADS), **o),
    "get one": lambda v, **o: v.get(["v007"], **o),
    "scroll": lambda v, **o: v.scroll(**o),
    "by a field": lambda v, **o: v.scroll(order_by="n", with_embedding=True, **o),
    "stream": lambda v, **o: listed(v.stream(batch_size=50, **o)),
}


def rows_of(answer: Any) -> list[Any]:
    if isinstance(answer, dict):
        return list(answer.values())
    return list(getattr(answer, "records", answer))


def attributes(number: int) -> dict[str, Any]:
    if number % 5 == 0:
        return {}
    return {
        "year": number,
        "price": Decimal(number) / 4,
        "seen": datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=number),
        "mood": list(Mood)[number % 2],
        "tags": ["a", str(number)],
    }


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    async with Database.connect(dsn, encryption_keys=["A" * 43 + "="]) as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        for vectors in (database.vectors, database.collection(Shared, namespace="a")):
            await vectors.upsert(
                {"id": key, "embedding": [1.0 + i] * 7 + [i], "payload": one, "document": "text"}
                for i, (key, one) in enumerate(PAYLOADS.items())
            )
        yield database


@pytest.mark.parametrize("lane", ["alone", "watched", "together"])
async def test_every_search_and_read_returns_the_parts_that_are_named(
    db: Database, lane: str
) -> None:
    if lane == "watched":
        event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
    async with db.unit_of_work() as uow:
        on = uow if lane == "together" else db
        for vectors in (on.vectors, on.collection(Shared, namespace="a")):
            for name, call in (CALLS | READS).items():
                for document in ([], ["$document"]):
                    found = rows_of(await call(vectors, with_payload=[*PATHS, *document]))
                    assert found, name
                    for row in found:
                        assert row.payload == parts(PAYLOADS[row.id], STEPS), name
                        assert row.document == ("text" if document else None), name
                        assert row.attributes is None, name
                for row in rows_of(await call(vectors, with_payload=["secret"])):
                    assert row.payload == parts(PAYLOADS[row.id], [("secret",)]), name
                for row in rows_of(await call(vectors, with_payload=[])):
                    assert (row.payload, row.document) == ({}, None), name
                for row in rows_of(await call(vectors, with_payload=False)):
                    assert (row.payload, row.document) == (None, None), name
                for row in rows_of(await call(vectors, with_payload=("n", "$document"))):
                    assert (row.payload, row.document) == ({"n": int(row.id[1:])}, "text"), name


@pytest.mark.parametrize("name", [*CALLS, *READS])
async def test_what_names_no_parts_is_refused(db: Database, name: str) -> None:
    for given, says in (
        ("n", "with_payload is a str; pass True, False, or a list"),
        (1, "with_payload is a int"),
        (None, "with_payload is a NoneType"),
        ([""], "empty key"),
        ([7], r"with_payload\[0\] is a int"),
        (["x"] * 65, "65 paths; at most 64"),
    ):
        with pytest.raises(InvalidInputError, match=says):
            await (CALLS | READS)[name](db.vectors, with_payload=given)
    with pytest.raises(InvalidInputError, match="stored encrypted"):
        await (CALLS | READS)[name](
            db.collection(Shared, namespace="a"), with_payload=["secret.of"]
        )


async def test_the_order_of_paths_makes_no_other_statement(db: Database) -> None:
    await db.vectors.search(Q, with_payload=PATHS)
    await db.vectors.get(["v001"], with_payload=PATHS)
    compiled = compilations(db.engine)
    await db.vectors.search(Q, with_payload=[*PATHS[::-1], "deep.er.b"])
    await db.vectors.get(["v002"], with_payload=PATHS[::-1])
    assert not compiled


COLUMNS = ["year", Shared.price, "seen", Shared.mood, "tags"]


@pytest.mark.parametrize("lane", ["alone", "watched", "together"])
async def test_columns_are_returned_beside_parts_by_name_or_attribute(
    db: Database, lane: str
) -> None:
    shared = db.collection(Shared, namespace="a")
    await shared.update_many(
        {"id": f"v{number:03}", "attributes": attributes(number)}
        for number in range(60)
        if attributes(number)
    )
    bare = db.collection(Bare)
    await bare.upsert(
        {
            "id": number,
            "embedding": [1.0 + number] * 7 + [number],
            "document": "text",
            "attributes": {"n": number, "document": number / 2},
        }
        for number in range(1, 9)
    )
    if lane == "watched":
        event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
    names = attributes(1).keys()
    async with db.unit_of_work() as uow:
        on = uow if lane == "together" else db
        shared, bare = on.collection(Shared, namespace="a"), on.collection(Bare)
        for name, call in (CALLS | READS).items():
            found = rows_of(await call(shared, with_payload=[*COLUMNS, "deep.er.b", "$document"]))
            assert found, name
            for row in found:
                number = int(row.id[1:])
                told = dict.fromkeys(names) | attributes(number)
                expected = {**told, "deep": {"er": {"b": number}}}
                assert row.payload == expected, name
                assert {key: type(row.payload[key]) for key in told} == {
                    key: type(value) for key, value in told.items()
                }
                assert (row.document, row.attributes) == ("text", None), name
            said = [{"$column": ["created_at", "id"]}, {"$payload": "n"}]
            for row in rows_of(await call(shared, with_payload=said)):
                number = int(row.id[1:])
                moment = row.payload.pop("created_at")
                assert moment.tzinfo is not None, name
                assert row.payload == {"id": row.id, "n": number}, name
        for name, call in (CALLS | READS).items():
            if name in ("get", "get one"):
                continue
            for row in rows_of(await call(bare, with_payload=["n", Bare.document])):
                assert row.payload == {"n": row.id, "document": row.id / 2}, name
                assert row.document is None, name
        got = await bare.get([3], with_payload=[Bare.n, "$document"])
        assert (got[3].payload, got[3].document) == ({"n": 3}, "text")


REFUSED: list[tuple[Any, str]] = [
    (["nope"], "bare has no payload, and no column 'nope' to filter by; it has n, document"),
    ([{"$payload": "n"}], "bare has no payload"),
    ([{"$column": "nope"}], r"with_payload\[0\] names 'nope'; the columns are"),
    ([Bare.emb], "is the column emb; ask for it by with_embedding"),
    ([{"$column": "emb"}], "ask for it by with_embedding"),
    ([{"$column": "body"}], r'ask for it by "\$document"'),
    ([Shared.year], r"with_payload\[0\] is no column of bare"),
    ([Bare.n + 1], "is no column of bare"),
    ([{}], r"takes a dict of \$column and \$payload"),
    ([{"$in": "n"}], r"takes a dict of \$column and \$payload"),
    ([{"$column": 7}], "is a int"),
    ([{"$column": [7]}], "is a int"),
]


async def test_columns_that_can_not_be_returned_are_named(db: Database) -> None:
    bare, shared = db.collection(Bare), db.collection(Shared, namespace="a")
    for given, says in REFUSED:
        with pytest.raises(InvalidInputError, match=says):
            await bare.search(Q, with_payload=given)
    for twice in (["year", {"$payload": "year"}], [Shared.year, "year.x"]):
        with pytest.raises(InvalidInputError, match="names 'year' twice"):
            await shared.get(["v001"], with_payload=twice)
    with pytest.raises(InvalidInputError, match="ask for it by its keys"):
        await shared.scroll(with_payload=[Shared.payload])
