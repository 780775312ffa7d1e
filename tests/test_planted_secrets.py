"""No value that a caller stores, or is let in by, is in an error, what hangs on it, or a log."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from qortex_db import Database, QortexDbError, Settings, unit_of_work
from qortex_db.errors import translate
from qortex_db.messages import scrubbed
from qortex_db.testing.factories import embedding

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from qortex_db.uow import Repositories

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
}


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
    kinds = set()
    async with Database.connect(dsn) as db:
        async with db.engine.begin() as connection:
            for statement in SETUP:
                await connection.exec_driver_sql(statement)
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
    assert {*STATES, "23505", "22P02", None} <= kinds
    assert SECRET not in caplog.text


async def _called(db: Database, way: str, call: Callable[[Repositories], Awaitable[Any]]) -> None:
    if way == "together":
        async with db.unit_of_work() as uow:
            await call(uow)
    elif way == "in a host's session":
        async with db.unit_of_work() as host, unit_of_work(host.session) as uow:
            await call(uow)
    else:
        await call(db)


LONG = "k\n" + "x" * 900
KEYS: dict[str, Callable[[Repositories], Awaitable[Any]]] = {
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
    for place, call in KEYS.items():
        with pytest.raises(QortexDbError) as caught:
            await call(db)
        said = str(caught.value)
        assert said.isprintable(), place
        assert len(said) < 600, place
        assert "x" * 300 not in said, place


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
