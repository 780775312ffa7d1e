"""What a service process exports where it has no provider of its own."""

from __future__ import annotations

import gzip
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    add_TraceServiceServicer_to_server,
)

from qortex_db import Settings
from support.scrapes import run, samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

QORTEX = {
    "qortex_vec_add_total",
    "qortex_vec_add_duration_seconds",
    "qortex_vec_search_duration_seconds",
    "qortex_vec_search_top_score",
    "qortex_vec_search_score_spread",
    "qortex_vec_search_candidates",
    "qortex_vec_index_size",
    "qortex_buffer_edges",
    "qortex_learning_selections_total",
    "qortex_learning_observations_total",
    "qortex_learning_posterior_mean",
    "qortex_factor_updates_total",
    "qortex_factor_mean",
    "qortex_factor_entropy",
    "qortex_pool_size",
    "qortex_pool_free",
    "qortex_pool_used",
}
"""Those that qortex documents."""
OURS = {
    "qortex_call_duration_seconds",
    "qortex_errors_total",
    "qortex_pool_wait_seconds",
    "qortex_rows_read_total",
    "qortex_rows_written_total",
    "qortex_slow_calls_total",
}


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_prometheus_reads_every_metric_once_by_its_name(dsn: str, port: int) -> None:
    given = run(dsn, port, "has none")
    found = samples(given["scrape"])
    assert found.keys() >= QORTEX | OURS
    types = re.findall(r"^# TYPE (qortex_\S+)", given["scrape"], re.MULTILINE)
    assert sorted(types) == sorted(set(types))
    assert not [name for name in found if name.startswith("qortex_") and name.endswith("_ratio")]
    values = {
        name: {tuple(sorted(_own(one.labels).items())): one.value for one in found[name]}
        for name in QORTEX
    }
    of_table = ("collection", "qortex_vectors")
    assert values["qortex_vec_index_size"][of_table,] == 2
    assert values["qortex_vec_add_total"][of_table, ("method", "upsert")] == 2
    assert values["qortex_buffer_edges"][()] == 1
    assert values["qortex_factor_mean"][()] == 1.0
    assert values["qortex_factor_entropy"][()] == pytest.approx(0.811278, abs=1e-6)
    assert values["qortex_factor_updates_total"] == {(("outcome", "saved"),): 2}
    assert values["qortex_learning_posterior_mean"] == {
        (("arm_id", "v1"), ("learner", "prompts")): pytest.approx(2 / 3),
        (("arm_id", "v2"), ("learner", "prompts")): pytest.approx(1 / 3),
    }
    assert values["qortex_pool_size"][()] == 2
    assert values["qortex_pool_free"][()] + values["qortex_pool_used"][()] == 2
    assert given["events"].count("prometheus_serves") == 1
    service = re.search(r'target_info\{.*service_name="([^"]*)"', given["scrape"])
    assert service is not None
    assert service[1] == "qortex-db"


def _own(labels: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in labels.items() if not name.startswith("otel_scope")}


def test_a_port_that_is_taken_is_a_line_of_the_log_and_no_failure(dsn: str) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))  # noqa: S104 - as Prometheus's server does
        taken.listen()
        given = run(dsn, taken.getsockname()[1], "has none", QORTEX_PROMETHEUS_ENABLED="")
    assert given["events"].count("prometheus_port_taken") >= 1
    assert given["events"][-1] == "database_closed"


@pytest.mark.parametrize(
    ("host", "event"),
    [("has a provider", "metrics_left_to_host"), ("is qortex", "export_left_to_qortex")],
)
def test_nothing_is_served_beside_what_the_process_has(
    dsn: str, port: int, host: str, event: str
) -> None:
    given = run(dsn, port, host)
    assert given["scrape"] is None
    assert event in given["events"]


Taken = list[ExportTraceServiceRequest | ExportMetricsServiceRequest]


class Answer(BaseHTTPRequestHandler):
    """Takes what OTLP sends by HTTP."""

    taken: Taken
    kinds: ClassVar = {
        "/v1/traces": ExportTraceServiceRequest,
        "/v1/metrics": ExportMetricsServiceRequest,
    }

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.taken.append(self.kinds[self.path].FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def http_collector(taken: Taken) -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), type("Answer", (Answer,), {"taken": taken}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def grpc_collector(taken: Taken) -> Iterator[int]:
    def take(answer: Any) -> Any:
        return SimpleNamespace(Export=lambda request, _: taken.append(request) or answer())

    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(take(ExportTraceServiceResponse), server)
    add_MetricsServiceServicer_to_server(take(ExportMetricsServiceResponse), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


@pytest.mark.parametrize(
    ("protocol", "collector"), [("http/protobuf", http_collector), ("grpc", grpc_collector)]
)
def test_spans_and_metrics_are_sent_where_the_environment_names_an_endpoint(
    dsn: str,
    port: int,
    protocol: str,
    collector: Callable[[Taken], AbstractContextManager[int]],
) -> None:
    taken: Taken = []
    with collector(taken) as at:
        run(
            dsn,
            port,
            "has none",
            QORTEX_OTEL_ENABLED="true",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{at}",
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_SERVICE_NAME="of mine",
            OTEL_METRIC_EXPORT_INTERVAL="300",
        )
    spans, measured, services = set(), set(), set()
    for request in taken:
        if isinstance(request, ExportTraceServiceRequest):
            for resource in request.resource_spans:
                services |= {a.value.string_value for a in resource.resource.attributes}
                spans |= {span.name for scope in resource.scope_spans for span in scope.spans}
        else:
            for metrics in request.resource_metrics:
                measured |= {m.name for scope in metrics.scope_metrics for m in scope.metrics}
    assert {"qortex_db.vectors.search", "qortex_db.arms.select"} <= spans
    assert measured >= QORTEX
    assert "of mine" in services


def test_a_command_serves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from qortex_db.cli.shell import read_settings  # noqa: PLC0415 - it takes long to import

    monkeypatch.setenv("QORTEX_PROMETHEUS_ENABLED", "true")
    monkeypatch.setenv("QORTEX_OTEL_ENABLED", "true")
    monkeypatch.setenv("QORTEX_DB_METRICS_SECONDS", "5")
    assert Settings().prometheus_enabled
    given = read_settings()
    assert not given.prometheus_enabled
    assert not given.otel_enabled
    assert given.metrics_seconds is None
