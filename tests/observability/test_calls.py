"""Each call of a repository's method has a span and is measured, in either lane."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import StatusCode
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from qortex_db import (
    Database,
    InFailedTransactionError,
    InvalidInputError,
    Limits,
    PgVectorIndex,
    PoolTimeoutError,
    QortexDbError,
    Settings,
    migrations,
    repositories,
    unit_of_work,
)
from qortex_db.observability import calls, exporting, metrics
from qortex_db.testing.factories import embedding
from support.measured import Measured

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import ModuleType

    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    Telemetry = tuple[InMemorySpanExporter, InMemoryMetricReader]

DOCS = Path(__file__).parents[2] / "docs"
NAMES = {
    "ArmRepository": "arms",
    "EdgeRepository": "edges",
    "EmbeddingRepository": "embeddings",
    "FactorRepository": "factors",
    "IdempotencyRepository": "idempotency",
    "VectorRepository": "vectors",
}
VECTOR = embedding(0, 8)
ROWS = [{"id": f"r{i}", "embedding": embedding(i, 8), "payload": {"n": i}} for i in range(20)]


def _methods() -> set[str]:
    return {
        f"qortex_db.{NAMES[kind]}.{name}"
        for kind in NAMES
        for name, method in inspect.getmembers(getattr(repositories, kind))
        if not name.startswith("_")
        and (inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method))
    }


@pytest.fixture(scope="module")
def page() -> Iterator[ModuleType]:
    """Every public method, in each of its forms."""
    sys.path.insert(0, str(DOCS))
    import statement_calls  # noqa: PLC0415

    yield statement_calls
    sys.path.remove(str(DOCS))


@pytest.mark.slow
@pytest.mark.parametrize("lane", ["alone", "together"])
async def test_every_public_method_has_a_span_of_its_name(
    dsn: str, page: Any, telemetry: Telemetry, lane: str
) -> None:
    spans, _ = telemetry
    spans.clear()
    async with Database.connect(dsn, encryption_keys=page.ENCRYPTION_KEYS) as db:
        async with db.engine.begin() as connection:
            await connection.run_sync(page.Base.metadata.create_all)
        for section in page.SECTIONS:
            if section.prelude is not None:
                await section.prelude(db)
            for forms in section.calls.values():
                call = next(iter(forms.values()))
                with suppress(QortexDbError):
                    if lane == "alone":
                        await call(section.repository(db))
                    else:
                        async with db.unit_of_work() as uow:
                            await call(section.repository(uow))
    told = {span.name: span for span in spans.get_finished_spans()}
    assert {name for name in told if name.startswith("qortex_db.")} == _methods()
    for name in _methods():
        attributes = told[name].attributes or {}
        assert attributes["db.system.name"] == "postgresql"
        assert attributes["db.operation.name"] == name.rpartition(".")[2]
        assert attributes["db.collection.name"]


async def test_spans_tell_rows_and_limits_and_hold_their_statements(
    dsn: str, telemetry: Telemetry
) -> None:
    spans, _ = telemetry
    async with Database.connect(Settings(dsn=dsn, otel_enabled=True)) as db:
        spans.clear()
        await db.vectors.upsert(ROWS)
        await db.vectors.search(VECTOR, limit=7)
        await db.vectors.search(VECTOR)
        await db.vectors.mmr_search(VECTOR, limit=3)
        assert [record.id async for record in db.vectors.stream(batch_size=6)]
        await db.factors.save({"a": 2.0, "b": 1.0})
        await db.vectors.delete(["r1", "r2", "nobody"])
    told = spans.get_finished_spans()
    ours = [span for span in told if span.name.startswith("qortex_db.")]
    found = [
        (span.name[10:], *(attributes.get(key) for key in WANTED))
        for span in ours
        if (attributes := dict(span.attributes or {}))
    ]
    assert found == [
        ("vectors.upsert", None, 20, None),
        ("vectors.search", 7, None, 7),
        ("vectors.search", 10, None, 10),
        ("vectors.mmr_search", 3, None, 3),
        ("vectors.stream", 20, None, None),
        ("factors.save", None, 2, None),
        ("vectors.delete", None, 2, None),
    ]
    by_id = {span.context.span_id: span.name for span in ours}
    inside = [by_id[span.parent.span_id] for span in told if span not in ours and span.parent]
    assert set(inside) == set(by_id.values())


WANTED = ("db.response.returned_rows", "qortex_db.written_rows", "qortex_db.limit")


async def test_what_reads_a_stream_is_no_part_of_it(db: Database, telemetry: Telemetry) -> None:
    spans, reader = telemetry
    await db.vectors.upsert(ROWS)
    spans.clear()
    before = Measured(reader)
    outside, begun = 0.0, time.perf_counter()
    async for record in db.vectors.stream(batch_size=50):
        start = time.perf_counter()
        await db.vectors.get([record.id])
        await asyncio.sleep(0.01)
        outside += time.perf_counter() - start
    in_all = time.perf_counter() - begun
    stream, *gets = sorted(spans.get_finished_spans(), key=lambda span: span.start_time)
    assert stream.name == "qortex_db.vectors.stream"
    assert [(span.name, span.parent) for span in gets] == [("qortex_db.vectors.get", None)] * 20
    measured = Measured(reader) - before
    assert measured.count("qortex_call_duration_seconds", method="get") == 20
    assert measured.sum("qortex_call_duration_seconds", method="stream") <= in_all - outside


async def test_a_search_is_a_search_and_nothing_else_is(db: Database, telemetry: Telemetry) -> None:
    _, reader = telemetry
    before = Measured(reader)
    await db.vectors.upsert(ROWS)
    hits = await db.vectors.search(VECTOR, limit=5)
    await db.vectors.search_many([VECTOR] * 3, limit=2)
    await db.vectors.count()
    await db.vectors.facet("n")
    await db.vectors.scroll()
    async with db.unit_of_work() as uow:
        await uow.vectors.mmr_search(VECTOR, limit=4)
    now = Measured(reader) - before
    duration, candidates = "qortex_vec_search_duration_seconds", "qortex_vec_search_candidates"
    of_table = {"collection": "qortex_vectors"}
    assert now.labels(duration) == [
        {**of_table, "method": method} for method in ("mmr_search", "search", "search_many")
    ]
    assert {m: now.count(duration, method=m) for m in ("search", "search_many")} == {
        "search": 1,
        "search_many": 1,
    }
    assert now.count(candidates, method="search_many") == 3
    assert now.sum(candidates, method="search_many") == 6
    assert now.sum(candidates, method="search") == 5
    now_search = {"method": "search", **of_table}
    top = Measured(reader).value("qortex_vec_search_top_score", **now_search)
    spread = Measured(reader).value("qortex_vec_search_score_spread", **now_search)
    assert (top, spread) == (hits[0].score, hits[0].score - hits[-1].score)
    assert now.value("qortex_vec_add_total", method="upsert") == 20
    assert now.value("qortex_rows_written_total", method="upsert") == 20
    assert now.value("qortex_rows_read_total", method="search") == 5
    assert now.value("qortex_rows_read_total", method="search_many") == 6
    assert now.value("qortex_rows_read_total", method="count") == 1


async def test_bounds_are_seconds(db: Database, telemetry: Telemetry) -> None:
    _, reader = telemetry
    await db.vectors.search(VECTOR)
    for name in (
        "qortex_vec_search_duration_seconds",
        "qortex_vec_add_duration_seconds",
        "qortex_call_duration_seconds",
        "qortex_pool_wait_seconds",
    ):
        bounds = Measured(reader).bounds(name)
        assert bounds is None or bounds == metrics.SECONDS
    assert {0.001, 0.01, 0.1, 1.0, 10.0} < set(metrics.SECONDS)
    steps = zip(metrics.SECONDS, metrics.SECONDS[1:], strict=False)
    assert all(1 < high / low <= 2 for low, high in steps)


async def test_percentiles_of_the_buckets_are_those_of_the_calls(
    db: Database, telemetry: Telemetry
) -> None:
    _, reader = telemetry
    name, method = "qortex_call_duration_seconds", "range_search"
    await db.vectors.ingest({"id": str(i), "embedding": embedding(i, 8)} for i in range(10_000))
    took = []
    for _ in range(200):
        start = asyncio.get_running_loop().time()
        await db.vectors.range_search(VECTOR, min_score=0.999)
        took.append(asyncio.get_running_loop().time() - start)
    took.sort()
    measured = Measured(reader)
    for share in (0.5, 0.95):
        low, high = measured.bucket(name, share, method=method, collection="qortex_vectors")
        assert low * 0.8 <= took[int(share * 200)] <= high * 1.25


async def test_labels_have_only_so_many_values(
    db: Database, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, reader = telemetry
    monkeypatch.setitem(metrics._values, "learner", set())  # whatever ran before
    for number in range(metrics.MOST_VALUES + 20):
        await db.arms.observe_many(f"learner {number}", [("a", 1.0)])
    learners = {
        labels["learner"]
        for labels in Measured(reader).labels("qortex_learning_observations_total")
    }
    assert len({one for one in learners if one.startswith("learner ")}) == metrics.MOST_VALUES
    assert metrics.OTHER in learners


async def test_contexts_that_can_not_be_read_are_counted_as_others(
    dsn: str, telemetry: Telemetry
) -> None:
    assert telemetry  # somebody listens
    async with Database.connect(Settings(dsn=dsn, learning_history=True)) as db:
        for number in range(8):
            await db.arms.observe("l", "a", reward=1, context={"n": number})
            await db.arms.observe("l", "a", reward=1, context={"x": f"{number}\0"})
        readable = await db.arms.read_contexts("l")
    assert list(readable.values()).count(None) == 8
    assert calls._read(readable) == 16


async def test_errors_are_counted_by_class_and_end_their_spans(
    db: Database, telemetry: Telemetry
) -> None:
    spans, reader = telemetry
    before = Measured(reader)
    spans.clear()
    with pytest.raises(InvalidInputError):
        await db.vectors.search([0.0] * 8)
    with pytest.raises(InvalidInputError):
        [each async for each in db.vectors.stream(batch_size=0)]
    now = Measured(reader) - before
    assert now.value("qortex_errors_total", method="search", error="InvalidInputError") == 1
    assert now.value("qortex_errors_total", method="stream", error="InvalidInputError") == 1
    for span in spans.get_finished_spans():
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["error.type"] == "qortex_db.errors.InvalidInputError"


@pytest.mark.parametrize("lane", ["alone", "together", "a host's session"])
async def test_a_slow_call_is_told_by_its_method_and_no_value(
    dsn: str, telemetry: Telemetry, lane: str
) -> None:
    _, reader = telemetry
    before = Measured(reader)
    settings = Settings(dsn=dsn, slow_call_seconds=0)
    secret = "s3cr3t"  # noqa: S105 - a value
    with structlog.testing.capture_logs() as told:
        async with Database.connect(settings) as db:
            if lane == "alone":
                await db.vectors.get([secret])
                await db.vectors.ingest([{"id": secret, "embedding": VECTOR}])
            elif lane == "together":
                async with db.unit_of_work() as uow:
                    await uow.vectors.get([secret])
            else:
                async with (
                    AsyncSession(db.engine) as session,
                    unit_of_work(session, limits=Limits(slow_call_seconds=0.0)) as uow,
                ):
                    await uow.vectors.get([secret])
    slow = [each for each in told if each.get("method") == "vectors.get"]
    assert "vectors.ingest" not in [each.get("method") for each in told]
    assert [(each["event"], each["collection"]) for each in slow] == [
        ("slow_call", "qortex_vectors")
    ]
    assert slow[0]["seconds"] > 0
    assert secret not in str(told)
    assert (Measured(reader) - before).value("qortex_slow_calls_total", method="get") == 1


def test_no_call_is_slow_where_none_is_to_be_told() -> None:
    assert Limits(slow_call_seconds=None).slow_call_seconds is None
    for wrong in (-1, float("nan"), "1", True, 1e9):
        with pytest.raises(InvalidInputError, match="slow_call_seconds"):
            Limits(slow_call_seconds=wrong)  # type: ignore[arg-type]


async def test_waits_for_the_pool_are_measured_and_its_exhaustion_is_told_once(
    dsn: str, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_exhausted_until", 0.0)
    _, reader = telemetry
    before = Measured(reader)
    settings = Settings(dsn=dsn, pool_min_size=1, pool_max_size=1, pool_timeout_seconds=0.2)
    async with Database.connect(settings) as db:
        await asyncio.gather(*(db.factors.load() for _ in range(5)))
        with structlog.testing.capture_logs() as told:
            async with db.unit_of_work() as uow:
                await uow.factors.load()
                used = Measured(reader)
                for _ in range(3):
                    with pytest.raises(PoolTimeoutError):
                        await db.factors.load()
    now = Measured(reader) - before
    assert now.count("qortex_pool_wait_seconds") >= 4
    assert now.value("qortex_errors_total", error="PoolTimeoutError") == 3
    assert [each["method"] for each in told if each["event"] == "pool_exhausted"] == [
        "factors.load"
    ]
    assert used.value("qortex_pool_free") == used.value("qortex_pool_size") - 1
    assert used.value("qortex_pool_used") == 1


async def test_gauges_are_read_by_a_task_that_ends_with_the_database(
    dsn: str, telemetry: Telemetry
) -> None:
    spans, reader = telemetry
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://"))
    for db in (
        Database.connect(Settings(dsn=dsn, metrics_seconds=0.1)),
        Database.from_engine(engine, metrics_seconds=0.1),
    ):
        spans.clear()
        with trace.get_tracer("a host's").start_as_current_span("a request"):
            await db.open()
        async with db:
            await db.vectors.upsert(ROWS)
            await asyncio.sleep(0.5)
            read = [span for span in spans.get_finished_spans() if "summary" in span.name]
            assert {span.parent for span in read} == {None}
            assert (
                Measured(reader).value("qortex_vec_index_size", collection="qortex_vectors") == 20
            )
        assert "qortex_vec_index_size" not in Measured(reader).names()
        assert not [task for task in asyncio.all_tasks() if "gauges" in task.get_name()]
    await engine.dispose()


async def test_gauges_that_can_not_be_read_are_told_once_and_tried_again(
    empty_dsn: str, telemetry: Telemetry
) -> None:
    _, reader = telemetry
    with structlog.testing.capture_logs() as told:
        async with Database.connect(Settings(dsn=empty_dsn, metrics_seconds=0.1)) as db:
            await asyncio.sleep(0.4)
            await migrations.upgrade(Settings(dsn=empty_dsn, dimensions=8))
            await db.vectors.upsert(ROWS)
            await asyncio.sleep(0.5)
            size = Measured(reader).value("qortex_vec_index_size", collection="qortex_vectors")
    assert size == 20
    assert len([each for each in told if each["event"] == "gauges_not_read"]) == 1


async def test_gauges_outlive_whatever_a_host_s_engine_raises(
    dsn: str, telemetry: Telemetry
) -> None:
    _, reader = telemetry
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://"))

    def refuse(*_: object) -> None:
        raise RuntimeError("a listener of the host's")

    event.listen(engine.sync_engine, "before_cursor_execute", refuse)
    with structlog.testing.capture_logs() as told:
        async with Database.from_engine(engine, metrics_seconds=0.1) as db:
            await asyncio.sleep(0.2)
            assert "qortex_buffer_edges" not in Measured(reader).names()
            event.remove(engine.sync_engine, "before_cursor_execute", refuse)
            await db.edges.record("a", "b", score=1.0)
            await asyncio.sleep(0.3)
            assert Measured(reader).value("qortex_buffer_edges") == 1
            event.listen(engine.sync_engine, "before_cursor_execute", refuse)
            await asyncio.sleep(0.3)  # what no longer is read is shown no longer
            assert "qortex_buffer_edges" not in Measured(reader).names()
            event.remove(engine.sync_engine, "before_cursor_execute", refuse)
    failed = [each for each in told if each["event"] == "gauges_not_read"]
    assert [each["error"] for each in failed] == ["RuntimeError"] * 2
    await engine.dispose()


async def test_a_pool_is_counted_once_however_many_databases_have_it(
    dsn: str, telemetry: Telemetry
) -> None:
    _, reader = telemetry
    gc.collect()  # Databases of tests before this one
    before = Measured(reader).value("qortex_pool_size")
    async with Database.connect(Settings(dsn=dsn, pool_max_size=7)) as db:
        one, other = Database.from_engine(db.engine), Database.from_engine(db.engine)
        async with one, other, db.unit_of_work() as uow:
            await uow.factors.load()
            now = Measured(reader)
            assert now.value("qortex_pool_size") == before + 7
            assert now.value("qortex_pool_used") == 1
        assert Measured(reader).value("qortex_pool_size") == before + 7
        one = Database.from_engine(create_async_engine(db.engine.url))
        await one.open()
        assert Measured(reader).value("qortex_pool_size") > before + 7
        await one.engine.dispose()
        del one, other  # never closed
        gc.collect()
        assert Measured(reader).value("qortex_pool_size") == before + 7
    assert Measured(reader).value("qortex_pool_size") == before


async def test_what_can_not_be_exported_fails_no_opening(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "export", _broken)  # as an SDK that refuses its environment
    with structlog.testing.capture_logs() as told:
        async with Database.connect(dsn) as db:
            assert await db.vectors.count() == 0
    assert "database_opened" in [each["event"] for each in told]


@pytest.mark.parametrize("lane", ["alone", "together"])
async def test_a_cancelled_call_is_told_as_such(
    db: Database, telemetry: Telemetry, lane: str
) -> None:
    spans, reader = telemetry
    before = Measured(reader)
    spans.clear()
    async with db.unit_of_work() as holder:
        await holder.factors.save({"a": 1.0})
        with suppress(InFailedTransactionError):  # which the cancelled statement was in
            async with db.unit_of_work() as uow:
                task = asyncio.create_task(
                    (db if lane == "alone" else uow).factors.adjust({"a": "accepted"})
                )
                await asyncio.sleep(0.1)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
    now = Measured(reader) - before
    assert now.value("qortex_errors_total", method="adjust", error="CancelledError") == 1
    assert now.count("qortex_call_duration_seconds", method="adjust") == 1
    told = {span.name: span for span in spans.get_finished_spans()}
    ended = told["qortex_db.factors.adjust"]
    assert ended.status.status_code is StatusCode.ERROR
    assert (ended.attributes or {})["error.type"] == "asyncio.exceptions.CancelledError"


async def test_what_a_caller_s_code_calls_inside_a_call_is_told_too(
    db: Database, telemetry: Telemetry
) -> None:
    spans, _ = telemetry
    tasks: list[asyncio.Task[Any]] = []

    async def source() -> AsyncIterator[dict[str, Any]]:
        for row in ROWS[:3]:
            await db.factors.load()
            yield row

    def read(records: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        tasks.append(asyncio.create_task(db.edges.load()))
        yield from records

    async def later() -> None:
        await asyncio.sleep(0.05)
        await db.vectors.count()

    def tell(_: int) -> None:
        tasks.append(asyncio.create_task(later()))  # it lives on when the call is done

    async def model(texts: list[str]) -> list[Any]:
        await db.arms.contexts("l")
        return [VECTOR for _ in texts]

    spans.clear()
    await db.vectors.ingest(source(), on_progress=tell)
    await db.vectors.ingest(read(ROWS))
    await db.embeddings.embed(["text"], model=model, name="m")
    await asyncio.gather(*tasks)
    told = sorted(span.name.removeprefix("qortex_db.") for span in spans.get_finished_spans())
    assert told == [
        "arms.contexts",
        "edges.load",
        "embeddings.embed",
        *["factors.load"] * 3,
        "vectors.count",
        "vectors.ingest",
        "vectors.ingest",
    ]


async def test_rows_of_an_answer_are_counted_whatever_its_shape(
    db: Database, telemetry: Telemetry
) -> None:
    _, reader = telemetry
    before = Measured(reader)
    rows = [{**row, "payload": {"half": number % 2}} for number, row in enumerate(ROWS)]
    await db.vectors.upsert(rows)
    await db.vectors.search_groups(VECTOR, "half", limit=2, group_size=3)
    await db.factors.save({"a": 1.0, "b": 2.0})
    await db.factors.changes()
    await db.arms.select("l", ["a", "b", "c"], k=2)
    now = Measured(reader) - before
    rows_read = {
        method: now.value("qortex_rows_read_total", method=method)
        for method in ("search_groups", "changes", "select")
    }
    assert rows_read == {"search_groups": 6, "changes": 2, "select": 2}
    assert now.sum("qortex_vec_search_candidates", method="search_groups") == 6


def _break_instruments(monkeypatch: pytest.MonkeyPatch) -> None:
    told = [each for each in vars(metrics).values() if isinstance(each, metrics._Instrument)]
    assert len(told) > 15
    instrument = SimpleNamespace(add=_broken, record=_broken, set=_broken)
    for each in told:
        monkeypatch.setattr(each, "_instrument", instrument)


def _break_spans(when: str) -> Callable[[pytest.MonkeyPatch], None]:
    def add_processor(monkeypatch: pytest.MonkeyPatch) -> None:
        provider: Any = trace.get_tracer_provider()
        processor = SpanProcessor()
        monkeypatch.setattr(processor, when, _broken)
        of_all = provider._active_span_processor
        monkeypatch.setattr(of_all, "_span_processors", (*of_all._span_processors, processor))

    return add_processor


def _break_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("qortex_db")
    monkeypatch.setattr(logger, "level", logging.INFO)
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", _broken)
    monkeypatch.setattr(logger, "handlers", [handler])


def _break_structlog(monkeypatch: pytest.MonkeyPatch) -> None:
    _break_logging(monkeypatch)
    structlog.configure(processors=[_broken])


def _broken(*_: object, **__: object) -> NoReturn:
    raise RuntimeError("a host's own")


@pytest.fixture
def _structlog_as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("_structlog_as_it_was")
@pytest.mark.parametrize(
    "break_it",
    [
        _break_instruments,
        _break_spans("on_start"),
        _break_spans("on_end"),
        _break_logging,
        _break_structlog,
    ],
    ids=["instruments", "begin of spans", "end of spans", "logging", "structlog"],
)
async def test_what_is_told_never_fails_what_it_is_told_of(
    dsn: str,
    telemetry: Telemetry,
    monkeypatch: pytest.MonkeyPatch,
    break_it: Callable[[pytest.MonkeyPatch], None],
) -> None:
    assert telemetry  # somebody listens
    break_it(monkeypatch)
    settings = Settings(dsn=dsn, otel_enabled=True, slow_call_seconds=0, metrics_seconds=0.1)
    async with Database.connect(settings) as db:
        assert await db.vectors.upsert(ROWS) == 20
        assert await db.vectors.ingest(ROWS) == 20
        assert len(await db.vectors.search(VECTOR)) == 10
        assert len([each async for each in db.vectors.stream()]) == 20
        with pytest.raises(InvalidInputError):
            await db.vectors.search([0.0] * 8)
        await asyncio.gather(*(db.factors.load() for _ in range(30)))  # more than the pool has
        assert (await db.arms.observe("l", "a", reward=1.0)).pulls == 1
        assert (await db.arms.select("l", ["a"])).selected == ("a",)
        await db.factors.save({"a": 1.0})
        assert await db.factors.adjust({"a": "accepted"})
        await db.edges.record_many([("a", "b", 0.9)] * 3)
        assert len(await db.edges.promote()) == 1
        assert await PgVectorIndex(db, dimensions=8).size() == 20
    assert not [task for task in asyncio.all_tasks() if "gauges" in task.get_name()]
