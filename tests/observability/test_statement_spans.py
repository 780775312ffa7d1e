"""OpenTelemetry's spans of statements: of our engines, one each, and of nobody else's."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.instrumentation.sqlalchemy.engine import EngineTracer
from opentelemetry.sdk.trace import SpanProcessor
from sqlalchemy import Engine, event, text
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_cursor
from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import Database, PgVectorIndex, QortexDbError, Settings, VectorRecord
from qortex_db.testing.factories import embedding
from support.refusing import refuse_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from qortex_db import UnitOfWork

    Telemetry = tuple[InMemorySpanExporter, InMemoryMetricReader]

SECRET = "s3cr3t"  # noqa: S105 - a value
IS_STATEMENT = trace.SpanKind.CLIENT


class Begun(SpanProcessor):
    """The spans that began, since those that never end are not exported."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    def on_start(self, span: Any, parent_context: Any = None) -> None:  # noqa: ARG002
        self.spans.append(span)


@pytest.fixture
def begun(telemetry: Telemetry) -> Iterator[Begun]:
    telemetry[0].clear()
    provider: Any = trace.get_tracer_provider()
    before = provider._active_span_processor._span_processors
    provider.add_span_processor(processor := Begun())
    yield processor
    provider._active_span_processor._span_processors = before


def heard(db: Database) -> list[str]:
    """The statements of an engine from now on, as SQLAlchemy runs them."""
    statements: list[str] = []

    @event.listens_for(db.engine.sync_engine, "before_cursor_execute")
    def _hear(_conn: Any, _cursor: Any, statement: str, *_: object) -> None:
        statements.append(statement)

    return statements


async def use(of: Database | UnitOfWork) -> None:
    row = VectorRecord(
        id=SECRET, embedding=embedding(0, 384), document=SECRET, payload={SECRET: SECRET}
    )
    many = [VectorRecord(id=f"{SECRET}{i}", embedding=embedding(i, 384)) for i in range(200)]
    await of.vectors.upsert([row])
    await of.vectors.upsert(many)
    await of.vectors.get([SECRET])
    await of.vectors.search(row.embedding, where={SECRET: {"$eq": SECRET}})
    await of.vectors.search(row.embedding, where_document={"$contains": SECRET})
    await of.vectors.update(SECRET, payload={SECRET: 1})
    await of.vectors.count(where={SECRET: {"$in": [SECRET, "b"]}})
    await of.factors.save({SECRET: 0.5})
    await of.arms.observe_many(SECRET, [(SECRET, 1.0)])
    await of.arms.select(SECRET, [SECRET, "b"])
    await of.edges.record_many([(SECRET, "b", 0.9)])
    await of.vectors.delete([SECRET])


def check(begun: Begun, statements: list[str]) -> None:
    """One span a statement, each ended, and no value in any."""
    spans = [span for span in begun.spans if span.kind is IS_STATEMENT]
    assert [span.attributes["db.statement"] for span in spans] == statements
    assert len(statements) > 10
    assert all(span.end_time is not None for span in begun.spans)
    assert SECRET not in "".join(span.to_json() for span in begun.spans)


@pytest.mark.parametrize("lane", ["lone", "unit of work", "settings"])
async def test_each_statement_has_one_span_that_ends_and_holds_no_value(
    dsn384: str, begun: Begun, lane: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Database.connect(Settings(dsn=dsn384, otel_enabled=True)) as db:
        begun.spans.clear()
        statements = heard(db)
        if lane == "lone":
            await use(db)
        elif lane == "settings":
            await use(db.with_settings({"app.tenant": SECRET}))
        else:
            async with db.unit_of_work() as uow:
                await use(uow)
        check(begun, statements)
    assert "ended span" not in caplog.text


@pytest.mark.parametrize("whose", ["ours", "a host's"])
async def test_spans_are_the_same_where_the_driver_is_asked_past_sqlalchemy(
    dsn384: str, begun: Begun, whose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if whose == "ours":
        db = await Database.connect(Settings(dsn=dsn384, otel_enabled=True)).open()
    else:
        engine = create_async_engine(dsn384.replace("postgresql://", "postgresql+asyncpg://"))
        EngineTracer(trace.get_tracer("host"), engine.sync_engine, metrics.NoOpUpDownCounter("n"))
        derived = engine.execution_options(schema_translate_map={"elsewhere": "public"})
        db = Database.from_engine(derived)
    cursors = 0
    execute = AsyncAdapt_asyncpg_cursor.execute

    def counted(*args: Any) -> Any:
        nonlocal cursors
        cursors += 1
        return execute(*args)

    async def reads(of: Database | UnitOfWork) -> list[Any]:
        begun.spans.clear()
        await of.vectors.get([SECRET])
        await of.vectors.search(embedding(0, 384))
        await of.arms.observe(SECRET, SECRET, reward=1.0)
        with pytest.raises(QortexDbError):
            await of.executor.run(text("SELECT CAST(:v AS text)::int"), {"v": SECRET})
        spans = [span for span in begun.spans if span.kind is IS_STATEMENT]
        assert all(span.end_time for span in spans)
        if whose == "ours":
            assert SECRET not in "".join(span.to_json() for span in begun.spans)
        return [(span.name, dict(span.attributes), span.status.status_code) for span in spans]

    async def both() -> list[Any]:
        found = [await reads(db)]
        with suppress(QortexDbError):
            async with db.unit_of_work() as uow:
                found.append(await reads(uow))
        return found

    await both()
    monkeypatch.setattr(AsyncAdapt_asyncpg_cursor, "execute", counted)
    by_driver = await both()
    assert cursors == 0
    heard(db)
    assert await both() == by_driver
    assert cursors == 8
    assert [len(each) for each in by_driver] == [4, 4]
    await db.close()
    if whose != "ours":
        await engine.dispose()


async def test_statements_have_no_spans_where_settings_say_so(dsn384: str, begun: Begun) -> None:
    settings = Settings(dsn=dsn384, otel_enabled=True, otel_statements=False)
    async with Database.connect(settings) as db:
        begun.spans.clear()
        await use(db)
        async with db.unit_of_work() as uow:
            await use(uow)
        await PgVectorIndex(db).search(embedding(0, 384), top_k=1)
        assert all(span.kind is not IS_STATEMENT for span in begun.spans)
        assert {"vec.search", "qortex_db.vectors.search"} <= {span.name for span in begun.spans}


async def test_spans_of_what_fails_or_is_cancelled_end_without_a_value(
    dsn: str, begun: Begun, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"id": SECRET, "embedding": embedding(0, 8), "document": SECRET}]
    async with Database.connect(Settings(dsn=dsn, otel_enabled=True)) as db:
        await refuse_rows(db)
        begun.spans.clear()
        with pytest.raises(QortexDbError):
            await db.vectors.upsert(rows)
        with pytest.raises(QortexDbError):
            await db.arms.observe_many("l", [(SECRET, 1.0)])
        with pytest.raises(QortexDbError):
            async with db.unit_of_work() as uow:
                await uow.vectors.upsert(rows)
        async with db.unit_of_work() as uow:
            with suppress(QortexDbError):
                async with uow.session.begin_nested():
                    await uow.arms.observe_many("l", [(SECRET, 1.0)])
        slow = text("SELECT pg_sleep(9), CAST(:v AS text)")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), db.unit_of_work() as uow:
                await uow.session.execute(slow, {"v": SECRET})
    failed = [one for one in begun.spans if one.status.status_code is trace.StatusCode.ERROR]
    assert len([span for span in failed if span.kind is IS_STATEMENT]) == 5
    assert all(span.end_time is not None for span in begun.spans)
    assert SECRET not in "".join(span.to_json() for span in begun.spans)
    assert "ended span" not in caplog.text


async def _open(dsn: str, times: int) -> list[weakref.ref[Engine]]:
    engines = []
    for _ in range(times):
        async with Database.connect(Settings(dsn=dsn, otel_enabled=True)) as db:
            engines.append(weakref.ref(db.engine.sync_engine))
            assert await db.vectors.count() == 0
    return engines


@pytest.mark.parametrize(
    "times", [20, pytest.param(1_000, marks=[pytest.mark.faults, pytest.mark.timeout(300)])]
)
async def test_openings_touch_no_other_engine_and_leave_nothing(
    dsn: str, begun: Begun, times: int
) -> None:
    connect = Engine.connect
    url = dsn.replace("postgresql://", "postgresql+asyncpg://")
    theirs = create_async_engine(url)
    later = None
    try:
        left = len(EngineTracer._remove_event_listener_params)
        opened = await _open(dsn, times)
        assert len(EngineTracer._remove_event_listener_params) == left
        assert Engine.connect is connect
        gc.collect()
        # A few have connections that the event loop is still closing, however many there were.
        assert sum(engine() is not None for engine in opened) < 10
        assert len(begun.spans) >= times
        begun.spans.clear()
        later = create_async_engine(url)
        for engine in (theirs, later):
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
            async with Database.from_engine(engine) as db:
                await db.vectors.get(["a"])
        assert all(span.kind is not IS_STATEMENT for span in begun.spans)
    finally:
        await theirs.dispose()
        if later is not None:
            await later.dispose()


HOST = """
import asyncio, sys
from opentelemetry import trace
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

class Begun(SpanProcessor):
    spans = []
    def on_start(self, span, parent_context=None):
        self.spans.append(span)

provider = TracerProvider()
provider.add_span_processor(Begun())
trace.set_tracer_provider(provider)
instrumentor = SQLAlchemyInstrumentor()
if sys.argv[3] == "late":
    import qortex_db
instrumentor.instrument(skip_dep_check=True)

from sqlalchemy import create_engine, event, text
from qortex_db import Database, QortexDbError, Settings

def of_statements():
    spans = [one for one in Begun.spans if one.kind is trace.SpanKind.CLIENT]
    return [one.attributes["db.statement"] for one in spans if one.name != "connect"]

async def main(dsn, enabled):
    host = create_engine("sqlite://")
    for _ in range(3):
        async with Database.connect(Settings(dsn=dsn, otel_enabled=enabled)) as db:
            Begun.spans.clear()
            statements = []
            event.listen(
                db.engine.sync_engine, "before_cursor_execute", lambda *a: statements.append(a[2])
            )
            await db.vectors.count()
            async with db.unit_of_work() as uow:
                await uow.factors.save({"a": 0.5})
            async with db.engine.connect() as connection:
                try:
                    await connection.execute(text("SELECT CAST(:v AS text)::int"), {"v": "s3cr3t"})
                except Exception as error:
                    assert "s3cr3t" in str(error.orig)
                else:
                    raise AssertionError
            assert len(statements) >= 3
            assert of_statements() == statements
            assert all(span.end_time for span in Begun.spans)
            assert "s3cr3t" not in "".join(span.to_json() for span in Begun.spans)
            Begun.spans.clear()
            with host.connect() as connection:
                connection.execute(text("SELECT 1"))
            assert of_statements() == ["SELECT 1"]
            assert all(span.end_time for span in Begun.spans)
    async with Database.connect(Settings(dsn=dsn, otel_enabled=enabled)) as db:
        instrumentor.uninstrument()
        Begun.spans.clear()
        await db.vectors.count()
        assert not of_statements()

asyncio.run(main(sys.argv[1], sys.argv[2] == "enabled"))
"""


@pytest.mark.parametrize(
    ("enabled", "when"), [("enabled", "early"), ("not enabled", "early"), ("enabled", "late")]
)
def test_beside_a_host_that_instruments_all_engines_there_is_one_span_a_statement(
    dsn: str, enabled: str, when: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOST, dsn, enabled, when],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ended span" not in done.stderr
