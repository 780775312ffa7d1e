"""Providers of OpenTelemetry's for a process that has none: what the settings ask to export.

They are the process's, so they are made once, and stay until it ends, which flushes them.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics as api
from opentelemetry import trace

from qortex_db.observability import metrics, spans
from qortex_db.observability.logs import log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.resources import Resource

    from qortex_db.settings import Settings

_SERVICE: Final = "qortex-db"
_QORTEX: Final = "qortex.observe.emitter"
_ours: set[object] = set()


def export(settings: Settings) -> None:
    """Serve metrics to Prometheus, and send them and spans by OTLP, as the settings say.

    Where the process has a provider, or qortex, which makes its own, nothing is added.
    """
    by_otlp = settings.otel_enabled and settings.otlp_endpoint is not None
    if not (settings.prometheus_enabled or by_otlp):
        return
    if _QORTEX in sys.modules:
        log.info("export_left_to_qortex")
        return
    if importlib.util.find_spec("opentelemetry.sdk") is None:
        log.warning("otel_extra_missing", install='pip install "qortex-db[otel,prometheus]"')
        return
    if not metrics.are_measured():
        _measure(list(_readers(settings, by_otlp=by_otlp)))
    elif api.get_meter_provider() not in _ours:
        log.info("metrics_left_to_host", provider=_name(api.get_meter_provider()))
    if not by_otlp:
        return
    if not spans.are_recorded():
        _record(settings)
    elif trace.get_tracer_provider() not in _ours:
        log.info("spans_left_to_host", provider=_name(trace.get_tracer_provider()))


def _readers(settings: Settings, *, by_otlp: bool) -> Iterator[MetricReader]:
    if settings.prometheus_enabled and (reader := _prometheus(settings.prometheus_port)):
        yield reader
    if by_otlp and (exporter := _exporter(settings, "Metric", "metric_exporter", "metrics")):
        from opentelemetry.sdk.metrics.export import (  # noqa: PLC0415 - where it is wanted
            PeriodicExportingMetricReader,
        )

        yield PeriodicExportingMetricReader(exporter)


def _prometheus(port: int) -> MetricReader | None:
    """What Prometheus reads, once it is served; the registry is the process's default one."""
    try:
        exporter = importlib.import_module("opentelemetry.exporter.prometheus")
        client = importlib.import_module("prometheus_client")
    except ImportError:
        log.warning("prometheus_extra_missing", install='pip install "qortex-db[prometheus]"')
        return None
    try:
        client.start_http_server(port)
    except OSError as error:  # another process of this service has it, most likely
        log.warning("prometheus_port_taken", port=port, reason=error.strerror or "in use")
        return None
    log.info("prometheus_serves", port=port)
    reader: MetricReader = exporter.PrometheusMetricReader()
    return reader


def _exporter(settings: Settings, kind: str, module: str, path: str) -> Any:
    """OTLP's of one kind, by the protocol that is asked for, else by the one that is there."""
    name, endpoint = f"OTLP{kind}Exporter", settings.otlp_endpoint
    place = "opentelemetry.exporter.otlp.proto"
    if not settings.otlp_protocol.startswith("http"):
        try:
            grpc = importlib.import_module(f"{place}.grpc.{module}")
            return getattr(grpc, name)(endpoint=endpoint)
        except ImportError:
            pass
    try:
        http = importlib.import_module(f"{place}.http.{module}")
    except ImportError:
        log.warning("otel_extra_missing", install='pip install "qortex-db[otel]"')
        return None
    return getattr(http, name)(endpoint=f"{str(endpoint).rstrip('/')}/v1/{path}")


def _measure(readers: list[MetricReader]) -> None:
    if not readers:
        return
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - where it is wanted

    provider = MeterProvider(metric_readers=readers, resource=_resource())
    api.set_meter_provider(provider)
    _ours.add(provider)


def _record(settings: Settings) -> None:
    exporter = _exporter(settings, "Span", "trace_exporter", "traces")
    if exporter is None:
        return
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - where it is wanted
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider(resource=_resource())
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    _ours.add(provider)


def _resource() -> Resource:
    """As the environment names the service (`OTEL_SERVICE_NAME`), or else as ours."""
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415

    found = Resource.create()
    if not str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        return found
    return found.merge(Resource({SERVICE_NAME: _SERVICE}))


def _name(provider: object) -> str:
    return f"{type(provider).__module__}.{type(provider).__qualname__}"
