from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from opentelemetry import trace

from qortex_db import (
    Database,
    PgVectorIndex,
    PostgresInteroceptionStore,
    PostgresLearningStore,
    QortexDbError,
    Settings,
    observability,
)
from qortex_db.testing.factories import ArmStateFactory, embedding
from support.refusing import refuse_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

VECTOR = embedding(0, 8)


async def use(db: Database) -> None:
    index = PgVectorIndex(db, dimensions=8)
    await index.add(["a"], [VECTOR])
    await index.search(VECTOR)
    store = PostgresInteroceptionStore(db)
    await store.save_factors({"a": 1.0})
    await store.load_factors()
    learning = PostgresLearningStore("l", db)
    await learning.put("a", ArmStateFactory.build())
    await learning.get("a")
    await db.arms.observe_many("l", [("a", 1.0), ("b", 0.0)])
    await db.arms.select("l", ["a", "b"])
    await db.edges.record_many([("a", "b", 0.9)] * 3)
    await db.edges.promote()
    for _ in range(2):
        await db.embeddings.embed(["a"], model=lambda _: [VECTOR], name="m")


async def test_stores_have_qortex_spans_with_their_statements_inside(
    dsn: str, telemetry: tuple[InMemorySpanExporter, InMemoryMetricReader]
) -> None:
    spans, _ = telemetry
    spans.clear()
    for _ in range(2):  # the second engine of a process is traced as well
        spans.clear()
        async with Database.connect(Settings(dsn=dsn, otel_enabled=True)) as db:
            await use(db)
        finished = {span.name: span for span in spans.get_finished_spans()}
        assert {
            "learning.pg.get",
            "learning.pg.put",
            "interoception.pg.load_factors",
            "interoception.pg.save_factors",
            "vec.add",
            "vec.search",
        } <= finished.keys()
        by_id = {span.context.span_id: span for span in spans.get_finished_spans()}
        (statement, *_) = [
            span
            for span in by_id.values()
            if span.name.startswith("SELECT") and "learning_arm_states" in str(span.attributes)
        ]
        assert statement.parent is not None
        method = by_id[statement.parent.span_id]
        assert method.name == "qortex_db.arms.get"
        assert method.parent is not None
        assert by_id[method.parent.span_id].name == "learning.pg.get"


async def test_the_metrics_are_recorded(
    db: Database, telemetry: tuple[InMemorySpanExporter, InMemoryMetricReader]
) -> None:
    _, reader = telemetry
    await use(db)
    data: Any = reader.get_metrics_data()
    names = {
        metric.name
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert {
        "qortex_vec_add_total",
        "qortex_vec_add_duration_seconds",
        "qortex_vec_search_duration_seconds",
        "qortex_learning_selections_total",
        "qortex_learning_observations_total",
        "qortex_factor_updates_total",
        "qortex_edges_promoted_total",
        "qortex_embedding_cache_hits_total",
        "qortex_embedding_cache_misses_total",
    } <= names


async def test_events_go_to_the_logger_that_the_host_configures(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Database.connect(dsn):
        assert not caplog.records
    with caplog.at_level(logging.INFO, "qortex_db"):
        async with Database.connect(dsn):
            pass
    assert "event='database_opened'" in caplog.text
    handlers = logging.getLogger("qortex_db").handlers
    assert [type(handler) for handler in handlers] == [logging.NullHandler]


EVENTS = ["database_opened", "database_closing", "database_closed"]
PRINTING = {"processors": [structlog.processors.add_log_level, structlog.processors.JSONRenderer()]}
THROUGH_LOGGING = {
    "processors": [
        structlog.stdlib.filter_by_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.JSONRenderer(),
    ],
    "wrapper_class": structlog.stdlib.BoundLogger,
    "logger_factory": structlog.stdlib.LoggerFactory(),
    "cache_logger_on_first_use": True,
}


@pytest.fixture
def _structlog_begins_anew() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


async def _open(dsn: str) -> None:
    async with Database.connect(dsn):
        pass


@pytest.mark.usefixtures("_structlog_begins_anew")
@pytest.mark.parametrize("way", ["printing", "through logging"])
async def test_events_are_structured_where_a_host_configured_structlog(
    dsn: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    printed = io.StringIO()
    options: dict[str, Any] = {**(PRINTING if way == "printing" else THROUGH_LOGGING)}
    if way == "printing":
        options["logger_factory"] = structlog.PrintLoggerFactory(printed)
    structlog.configure(**options)
    with caplog.at_level(logging.INFO, "qortex_db"):
        await _open(dsn)
    logged = [record.getMessage() for record in caplog.records if record.name == "qortex_db"]
    lines = printed.getvalue().splitlines() if way == "printing" else logged
    told, *others = map(json.loads, lines)
    assert [each["event"] for each in others] == EVENTS[1:]
    logger = {} if way == "printing" else {"logger": "qortex_db"}
    database = dsn.partition("?")[0].rpartition("/")[2]
    assert told == {
        "event": "database_opened",
        "level": "info",
        "server": f"{dsn.partition('host=')[2]}/{database}",
        **logger,
    }
    with structlog.testing.capture_logs() as captured:
        await _open(dsn)
    assert [each["event"] for each in captured] == EVENTS
    assert captured[0]["log_level"] == "info"


@pytest.mark.usefixtures("_structlog_begins_anew")
async def test_capture_logs_sees_events_and_leaves_standard_logging_as_it_was(
    dsn: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, "qortex_db"):
        with structlog.testing.capture_logs() as captured:
            await _open(dsn)
        assert [each["event"] for each in captured] == EVENTS
        assert "database_opened" not in caplog.text
        await _open(dsn)
    assert "event='database_opened'" in caplog.text
    assert capsys.readouterr().out == ""


async def test_spans_say_of_an_error_what_it_is_and_no_value(
    dsn: str, telemetry: tuple[InMemorySpanExporter, InMemoryMetricReader]
) -> None:
    spans, _ = telemetry
    secret = "s3cr3t"  # noqa: S105 - a value
    async with Database.connect(Settings(dsn=dsn, otel_enabled=True)) as db:
        await refuse_rows(db)
        spans.clear()
        store = PostgresLearningStore("l", db)
        with pytest.raises(QortexDbError):
            await store.put(secret, ArmStateFactory.build())
        with pytest.raises(QortexDbError):
            await PgVectorIndex(db, dimensions=8).add([secret], [VECTOR])
        with pytest.raises(QortexDbError):
            await db.vectors.upsert([{"id": "a", "embedding": VECTOR, "document": secret}])
        with pytest.raises(RuntimeError):
            await observability.traced("theirs")(_fail)(secret)
    told = spans.get_finished_spans()
    assert sum(span.status.status_code is trace.StatusCode.ERROR for span in told) == 9
    assert secret not in "".join(span.to_json() for span in told)
    events = {span.name: [dict(e.attributes or {}) for e in span.events] for span in told}
    assert events["learning.pg.put"][0]["exception.type"] == "qortex_db.errors.QortexDbError"
    assert "put" in str(events["learning.pg.put"][0]["exception.stacktrace"])
    assert events["theirs"][0].keys() == {"exception.type", "exception.stacktrace"}


async def _fail(value: str) -> None:
    raise RuntimeError(value)
