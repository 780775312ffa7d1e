"""Logs, spans and metrics, and their names. All are silent until the host listens."""

from __future__ import annotations

import functools
import logging
import traceback
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import structlog
from opentelemetry import metrics, trace

from qortex_db.errors import QortexDbError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

P = ParamSpec("P")
T = TypeVar("T")

_logger = logging.getLogger("qortex_db")
_logger.addHandler(logging.NullHandler())

_to_logging: structlog.stdlib.BoundLogger = structlog.wrap_logger(
    _logger,
    processors=[
        structlog.stdlib.filter_by_level,
        structlog.processors.KeyValueRenderer(key_order=["event"]),
    ],
    wrapper_class=structlog.stdlib.BoundLogger,
)


def _configuration() -> dict[str, Any]:
    found = structlog.get_config()
    return {**found, "processors": [*found["processors"]]}  # capture_logs() changes the list itself


# After capture_logs() a process counts as configured, by what structlog began with.
_unconfigured = None if structlog.is_configured() else _configuration()


class _Log:
    """Events as the host has its own: by its structlog configuration, if it made one.

    Else they are `event='…' key=value` through standard logging's `qortex_db`.
    """

    def info(self, event: str, **fields: object) -> None:
        self._logger().info(event, **fields)

    def warning(self, event: str, **fields: object) -> None:
        self._logger().warning(event, **fields)

    def _logger(self) -> Any:
        # Asked each time: hosts configure it late, and tests for a while.
        if structlog.is_configured() and _configuration() != _unconfigured:
            return structlog.get_logger(_logger.name)
        return _to_logging


log = _Log()

_tracer = trace.get_tracer("qortex_db")
_meter = metrics.get_meter("qortex_db")

vec_add_total = _meter.create_counter(
    "qortex_vec_add_total", unit="{vector}", description="Vectors given to be stored"
)
vec_add_duration = _meter.create_histogram(
    "qortex_vec_add_duration_seconds", unit="s", description="Time of storing vectors"
)
vec_search_duration = _meter.create_histogram(
    "qortex_vec_search_duration_seconds", unit="s", description="Time of a vector search"
)
vec_recall = _meter.create_gauge(
    "qortex_vec_recall", unit="1", description="Share of the true neighbours that an index finds"
)
learning_selections_total = _meter.create_counter(
    "qortex_learning_selections_total", unit="{selection}", description="Bandit selections"
)
learning_observations_total = _meter.create_counter(
    "qortex_learning_observations_total", unit="{observation}", description="Bandit observations"
)
factor_updates_total = _meter.create_counter(
    "qortex_factor_updates_total", unit="{update}", description="Factor updates"
)
edges_promoted_total = _meter.create_counter(
    "qortex_edges_promoted_total", unit="{edge}", description="Edges taken out of the buffer"
)
embedding_cache_hits_total = _meter.create_counter(
    "qortex_embedding_cache_hits_total", unit="{text}", description="Embeddings found in the cache"
)
embedding_cache_misses_total = _meter.create_counter(
    "qortex_embedding_cache_misses_total", unit="{text}", description="Embeddings left to a model"
)
reads_total = _meter.create_counter(
    "qortex_reads_total", unit="{statement}", description="Reads that a replica could answer"
)


def traced(name: str) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
    """Put a coroutine function into a span of this name."""

    def decorate(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        @functools.wraps(function)
        async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            # What OpenTelemetry records of an error by itself quotes values, as its causes do.
            with _tracer.start_as_current_span(
                name, record_exception=False, set_status_on_exception=False
            ) as span:
                try:
                    return await function(*args, **kwargs)
                except Exception as error:
                    tell_of(span, error)
                    raise

        return wrapper

    return decorate


def tell_of(span: trace.Span, error: BaseException) -> None:
    """Record an error in a span, by its type; what it says only where it is ours."""
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    said = {"exception.message": str(error)} if isinstance(error, QortexDbError) else {}
    stack = "".join(traceback.format_tb(error.__traceback__))
    span.add_event("exception", {"exception.type": name, "exception.stacktrace": stack, **said})
    span.set_status(trace.StatusCode.ERROR, f"{name}: {error}" if said else name)
