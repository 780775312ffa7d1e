"""No value that a caller stores, or is let in by, is in an error, what hangs on it, or a log."""

from __future__ import annotations

import base64
import logging
import traceback
from collections.abc import Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import MetaData, String, TypeDecorator, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import (
    Collection,
    Database,
    InvalidInputError,
    QortexDbError,
    QortexVector,
    Settings,
    VectorMixin,
    VectorSpec,
    unit_of_work,
)
from qortex_db.messages import scrubbed
from qortex_db.repositories import VectorRepository
from qortex_db.testing.factories import embedding
from qortex_db.translation import translate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from qortex_db.uow import Repositories
    from qortex_db.view import Lanes

SECRET = "s3cr3t"  # noqa: S105 - what nobody may see
GOOD = embedding(0, 8)
STATES = ("P0001", "23514", "22023", "42P01", "42601", "40001", "40P01", "57014", "55P03", "QX001")
"""What a function of a stranger's may give as the kind of its error."""

TRIGGER = """
CREATE OR REPLACE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.document LIKE 'raise %' THEN
    RAISE EXCEPTION E'not \\n %', NEW.document USING ERRCODE = split_part(NEW.document, ' ', 2),
      DETAIL = NEW.document, HINT = NEW.document, COLUMN = NEW.document;
  ELSIF NEW.document LIKE 'execute %' THEN
    EXECUTE format('SELECT %I', NEW.document);
  ELSIF NEW.document LIKE 'cast %' THEN
    PERFORM NEW.document::int;
  END IF;
  RETURN NEW;
END $$;
"""
SETUP = (
    TRIGGER,
    (
        "CREATE TRIGGER tell BEFORE INSERT OR UPDATE ON qortex_vectors "
        "FOR EACH ROW EXECUTE FUNCTION tell()"
    ),
    "ALTER TABLE qortex_vectors ADD CONSTRAINT short CHECK (length(document) < 60)",
    "CREATE UNIQUE INDEX once ON qortex_vectors ((payload ->> 'once'))",
    "CREATE INDEX whole ON qortex_vectors (((payload ->> 'whole')::int))",
    (
        "CREATE FUNCTION loud(text) RETURNS text LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'loud %', $1; END $$"
    ),
)


PLANTED = f"""
INSERT INTO hosts (id, vec, tenant, payload)
VALUES ('planted', '[1,1,1,1,1,1,1,1]', 'x', '{{"pii": "{SECRET}"}}')
"""
POLICY = (
    "INSERT INTO qortex_vectors (id) VALUES ('a') ON CONFLICT DO NOTHING",
    "ALTER TABLE qortex_vectors ENABLE ROW LEVEL SECURITY",
    (
        "CREATE POLICY own ON qortex_vectors USING (id = "
        "(nullif(current_setting('app.tenant', true), '')::uuid)::text)"
    ),
)


def row(**given: Any) -> list[dict[str, Any]]:
    return [{"id": "a", "embedding": GOOD, **given}]


class Unreadable(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise ValueError(SECRET)

    def __iter__(self) -> Any:
        raise ValueError(SECRET)

    def __len__(self) -> int:
        return 1


class Number(float):
    def __float__(self) -> float:
        raise ValueError(SECRET)


CALLS: dict[str, Callable[[Repositories], Awaitable[Any]]] = {
    **{
        f"a trigger raises {state}": lambda r, state=state: r.vectors.upsert(
            row(document=f"raise {state} {SECRET}")
        )
        for state in STATES
    },
    "a trigger makes SQL of it": lambda r: r.vectors.upsert(row(document=f"execute {SECRET}")),
    "a trigger casts it": lambda r: r.vectors.upsert(row(document=f"cast {SECRET}")),
    "a check": lambda r: r.vectors.upsert(row(document=SECRET * 20)),
    "a unique index": lambda r: r.vectors.upsert(
        [{"id": key, "embedding": GOOD, "payload": {"once": SECRET}} for key in "ab"]
    ),
    "an index casts it": lambda r: r.vectors.upsert(row(payload={"whole": SECRET})),
    "a filter casts it": lambda r: r.vectors.count(where=text(f"payload -> 'a' = '{SECRET}'")),
    "a filter is no SQL": lambda r: r.vectors.count(where=text(f"payload = '{SECRET}")),
    "a filter calls a function": lambda r: r.vectors.count(where=text(f"loud('{SECRET}') = ''")),
    "a payload's neighbour": lambda r: r.vectors.upsert(
        row(payload={"a": SECRET, "b": float("nan")})
    ),
    "a surrogate beside it": lambda r: r.vectors.upsert(row(document=f"{SECRET}\ud800")),
    "NUL beside it": lambda r: r.vectors.upsert(row(payload={"a": f"{SECRET}\x00"})),
    "a payload that is text": lambda r: r.vectors.upsert(row(payload=SECRET)),
    "a payload that can't be read": lambda r: r.factors.save(Unreadable()),
    "an embedding of text": lambda r: r.vectors.search([SECRET] * 8),
    "a filter's value": lambda r: r.vectors.count(where={"a": {"$gt": [SECRET]}}),
    "a filter's list": lambda r: r.vectors.count(where={"a": {"$in": SECRET}}),
    "a filter's long text": lambda r: r.vectors.count(where={"a": {"$like": SECRET * 1_000}}),
    "a filter's number": lambda r: r.vectors.count(where={"a": {"$size": SECRET}}),
    "a context": lambda r: r.arms.observe("l", "a", reward=1, context={"a": SECRET, 1: 1}),
    "a context of text": lambda r: r.arms.observe("l", "a", reward=1, context=SECRET),  # type: ignore[arg-type]
    "a reward": lambda r: r.arms.observe("l", "a", reward=SECRET),  # type: ignore[arg-type]
    "a number of its own": lambda r: r.arms.observe("l", "a", reward=Number(0.5)),
    "an outcome": lambda r: r.factors.adjust({"a": SECRET}),
    "a time": lambda r: r.arms.rebuild("l", until=SECRET),
    "a cursor of changes": lambda r: r.factors.changes(SECRET),
    "a page's cursor": lambda r: r.vectors.scroll(after=SECRET),
    "a score": lambda r: r.edges.record("a", "b", score=SECRET),  # type: ignore[arg-type]
    "an idempotency key": lambda r: r.edges.record(
        "a",
        "b",
        score=1.0,
        idempotency_key=[SECRET],  # type: ignore[arg-type]
    ),
    "a text to embed": lambda r: r.embeddings.embed(
        [SECRET, f"{SECRET}\ud800"], model=lambda _: [GOOD], name="m"
    ),
    "what a model returns": lambda r: r.embeddings.embed(["a"], model=lambda _: [SECRET], name="m"),
    "an array that can't be read": lambda r: r.vectors.search(np.array([SECRET] * 8)),
    "a column of integers": lambda r: _hosts(r).upsert(row(attributes={"number": SECRET})),
    "a short column": lambda r: _hosts(r).upsert(row(attributes={"short": SECRET})),
    "a column of times": lambda r: _hosts(r).update("a", attributes={"at": SECRET}),
    "an encrypted key's neighbour": lambda r: _hosts(r).upsert(
        row(payload={"pii": SECRET, "b": {SECRET}})
    ),
    "an encrypted value": lambda r: _hosts(r).get(["planted"]),
    "a filter of an encrypted value": lambda r: _hosts(r).count(where={"pii": SECRET}),
    "a namespace": lambda r: r.collection(Hosts, namespace=[SECRET]).count(),
    "a namespace that is none": lambda r: r.vectors.search(GOOD, using=[SECRET]),  # type: ignore[arg-type]
}


class Base(DeclarativeBase):
    """A host's."""


class Sealed(TypeDecorator[str]):
    """A host's own, which asks a server of keys that is away."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, _: object) -> str | None:
        if value is not None:
            raise ConnectionError("no keys")
        return value


class Hosts(VectorMixin, Base):
    __tablename__ = "hosts"
    __collection__ = Collection(VectorSpec(8), encrypted=("pii",), namespace="tenant")

    sealed: Mapped[str | None] = mapped_column(Sealed)
    number: Mapped[int | None]
    short: Mapped[str | None] = mapped_column(String(3))
    at: Mapped[datetime | None]


def _hosts(repositories: Repositories) -> VectorRepository:
    return repositories.collection(Hosts, namespace="x")


OURS = ("alone", "together")
"""Ways on an engine of this package's; the others are on one of a host's."""
KEYS = [base64.urlsafe_b64encode(bytes(range(32)))]
TENANTS = {
    "app.tenant": 22,  # cast by a policy
    "statement_timeout": 22,
    "temp_tablespaces": 42,
    "role": 22,
    "timezone": 22,
    "default_text_search_config": 22,
}
"""Settings whose value a server refuses, and the class of its error."""


def seen_of(error: BaseException) -> str:
    """All that a report could show of an error: what is shown, and what is only attached."""
    parts = traceback.format_exception(error)
    seen: list[BaseException] = [error]
    for each in seen:
        parts += [str(each), repr(each), repr(vars(each)), *getattr(each, "__notes__", ())]
        more = (each.__cause__, each.__context__)
        seen += [other for other in more if other is not None and other not in seen]
    return "\n".join(parts)


@pytest.mark.parametrize("way", ["alone", "watched", "together", "in a host's session"])
async def test_no_value_is_in_an_error_or_what_hangs_on_it(
    dsn: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, "sqlalchemy")
    if way not in OURS:  # a host's engine logs parameters where its logger is told to
        caplog.set_level(logging.WARNING, "sqlalchemy.engine")
    kinds = set()
    async with _reached(dsn, way) as db:
        async with db.engine.begin() as connection:
            for statement in SETUP:
                await connection.exec_driver_sql(statement)
            await connection.run_sync(Base.metadata.create_all)
            await connection.exec_driver_sql(PLANTED)
        if way == "watched":
            event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
        caplog.clear()
        for place, call in CALLS.items():
            try:
                await _called(db, way, call)
            except QortexDbError as error:
                raised = error
            else:
                pytest.fail(f"Nothing was raised: {place}")
            seen = seen_of(raised)
            # The source lines of a traceback show this file's own.
            assert SECRET not in seen, f"{place}: {seen}"
            assert "\n" not in str(raised), place
            kinds.add(raised.sqlstate)
        await _ask_as_tenants(db, way)
    assert {*STATES, "23505", "22P02", None} <= kinds
    assert SECRET not in caplog.text


async def _ask_as_tenants(db: Database, way: str) -> None:
    async with db.engine.begin() as connection:
        for statement in POLICY:
            await connection.exec_driver_sql(statement)
    user = {"role": "pg_read_all_data"}
    for name, kind in TENANTS.items():
        view = db.with_settings(user | {name: SECRET})
        with pytest.raises(QortexDbError) as caught:
            await _called(view, way, lambda r: r.vectors.count())
        assert SECRET not in seen_of(caught.value), name
        assert (caught.value.sqlstate or "").startswith(str(kind)), (name, caught.value.sqlstate)


@asynccontextmanager
async def _reached(dsn: str, way: str, keys: Any = KEYS) -> AsyncIterator[Database]:
    """On a host's engine, whose own errors would show parameters, for half of the ways."""
    if way in OURS:
        async with Database.connect(dsn, encryption_keys=keys) as db:
            yield db
        return
    engine = create_async_engine(dsn.replace("postgresql:", "postgresql+asyncpg:"))
    yield Database.from_engine(engine, encryption_keys=keys)
    await engine.dispose()


async def _called(db: Lanes, way: str, call: Callable[[Repositories], Awaitable[Any]]) -> None:
    if way == "together":
        async with db.unit_of_work() as uow:
            await call(uow)
    elif way == "in a host's session":
        async with (
            db.unit_of_work() as host,
            unit_of_work(host.session, encryption_keys=db._encryption_keys) as uow,
        ):
            await call(uow)
    else:
        await call(db)


class Away:
    """An array on a disk that is away."""

    def __array__(self, *_: object, **__: object) -> Any:
        raise OSError("no disk")


MANY = [{"id": f"{i:04}", "embedding": [1.0] * 384} for i in range(400)]  # some parts
OWN: dict[str, Callable[[Repositories], Awaitable[Any]]] = {
    "a value": lambda r: _hosts(r).upsert(row(payload={"pii": SECRET}, attributes={"sealed": "a"})),
    "an update": lambda r: _hosts(r).update("a", attributes={"sealed": SECRET, "number": 7}),
    "many": lambda r: _wide(r).upsert(
        [
            {**one, "payload": {"a": SECRET}, "attributes": {"sealed": SECRET if i > 390 else None}}
            for i, one in enumerate(MANY)
        ]
    ),
    "keys": lambda r: _wide(r).upsert([*MANY, {**MANY[0], "id": "z", "payload": {"pii": SECRET}}]),
    "an array": lambda r: _wide(r).upsert([*MANY, {"id": "z", "embedding": Away()}]),
}


class Wide(VectorMixin, Base):
    __tablename__ = "wide"
    __collection__ = Collection(VectorSpec(384, index=None), encrypted=("pii",))

    sealed: Mapped[str | None] = mapped_column(Sealed)


def _wide(repositories: Repositories) -> VectorRepository:
    return repositories.collection(Wide)


@pytest.mark.parametrize("way", ["alone", "watched", "together", "in a host's session"])
async def test_an_error_of_what_a_caller_gives_is_none_of_the_connection(
    dsn: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is raised as it is, without the other values; nothing is written, and nothing in doubt."""
    caplog.set_level(logging.DEBUG)

    def keys() -> Any:
        raise ConnectionError("no keys")

    async with _reached(dsn, way, keys) as db:
        async with db.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        if way == "watched":
            event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
        gone: list[object] = []
        event.listen(db.engine.sync_engine, "invalidate", lambda *given: gone.append(given))
        caplog.clear()
        for place, call in OWN.items():
            kind = InvalidInputError if place == "an array" else ConnectionError
            with pytest.raises(kind, match=r"no keys|no disk") as caught:
                await _called(db, way, call)
            assert SECRET not in seen_of(caught.value), place
            assert await _wide(db).count() == 0, place
        assert gone == []
    assert SECRET not in caplog.text


LONG = "k\n" + "x" * 900
NAMES: dict[str, Callable[[Repositories], Awaitable[Any]]] = {
    "a payload's key": lambda r: r.vectors.upsert(row(payload={LONG * 1_000: float("nan")})),
    "an id": lambda r: r.vectors.upsert([{"id": LONG, "embedding": [1.0]}]),
    "an unknown column": lambda r: r.vectors.upsert(row(attributes={LONG * 1_000: 1})),
    "a factor": lambda r: r.factors.save({LONG: float("nan")}),
    "a filter's key": lambda r: r.vectors.count(where={LONG * 1_000: 1}),
    "a filter's operator": lambda r: r.vectors.count(where={"a": {f"${LONG * 1_000}": 1}}),
    "an edge": lambda r: r.edges.save({(LONG, "b"): _Edge()}),
    "an arm": lambda r: r.arms.put("l", LONG, _State()),
    "a vector's name": lambda r: r.vectors.search(GOOD, using=LONG * 1_000),
}


class _Edge:
    hit_count, scores, last_seen = -1, (1.0,), ""


class _State:
    alpha, beta, pulls, total_reward, last_updated = -1.0, 1.0, 0, 0.0, ""


async def test_keys_and_ids_are_cut_and_escaped(db: Database) -> None:
    for place, call in NAMES.items():
        with pytest.raises(QortexDbError) as caught:
            await call(db)
        said = str(caught.value)
        assert said.isprintable(), place
        assert len(said) < 600, place
        assert "x" * 300 not in said, place


async def test_no_name_begins_another_line_of_a_log(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = "a\nERROR all is lost\x1b[2J\u2028\r"
    caplog.set_level(logging.DEBUG, "qortex_db")
    odd = QortexVector.__table__.to_metadata(MetaData(), name=name)
    async with Database.connect(dsn) as db:
        async with db.engine.begin() as connection:
            quote = connection.dialect.identifier_preparer.quote
            await connection.exec_driver_sql(f"CREATE TABLE {quote(name)} (LIKE qortex_vectors)")
            await connection.exec_driver_sql(f"CREATE SCHEMA {quote(name)}")
            await connection.exec_driver_sql(f"GRANT CREATE ON SCHEMA {quote(name)} TO public")
            await connection.exec_driver_sql(
                f'ALTER DATABASE "{db.engine.url.database}" SET search_path = public, {quote(name)}'
            )
        vectors = VectorRepository(db.executor, odd)
        await vectors.count(where={name: {"$gt": datetime(2026, 1, 1, tzinfo=UTC)}})
        rows = [{"id": name, "embedding": []}]
        assert await vectors.ingest(rows, on_error="skip", rejects=lambda _: None) == 0
    async with Database.connect(dsn):  # which finds the schema, in its path and open to all
        pass
    told = [one.getMessage() for one in caplog.records if one.name == "qortex_db"]
    assert all(one.isprintable() for one in told), told
    said = [one for one in told if "all is lost" in one]
    for event_name in ("ingest_rejected", "filter_instant", "search_path_open_to_others"):
        assert any(event_name in one for one in said), (event_name, told)


async def test_a_password_is_in_no_error(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    dsn = f"postgresql://nobody:{SECRET}@127.0.0.1:1/none"
    with pytest.raises(QortexDbError) as caught:
        async with Database.connect(Settings(dsn=dsn, retry_seconds=0)):
            pass
    assert SECRET not in seen_of(caught.value)
    assert SECRET not in caplog.text


def test_what_is_quoted_in_any_language_is_scrubbed() -> None:
    for said in (
        'invalid input syntax for type integer: "{}"',
        "ungültige Eingabesyntax für Typ integer: »{}«",
        "syntaxe en entrée invalide pour le type integer : « {} »",
        "неверный синтаксис для типа integer: «{}»",
        "integer 型の入力構文が無効: 「{}」",
        "could not convert string to float: '{}'",
        'a "b" and {} and "c"',
    ):
        assert SECRET not in scrubbed(said.format(SECRET)), said
        assert SECRET not in scrubbed(said.format(f"a\n{SECRET}'\" b")), said
    kept = "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."
    assert scrubbed(kept) == kept


def test_a_driver_that_can_not_send_a_value_does_not_quote_it() -> None:
    original = UnicodeEncodeError("utf-8", SECRET, 0, 1, "surrogates not allowed")
    told = translate(DBAPIError("SELECT", {"a": SECRET}, original))
    assert told is not None
    assert SECRET not in str(told)
