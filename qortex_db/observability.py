"""Logs, spans and metrics, and their names. All are silent until the host listens."""

from __future__ import annotations

import functools
import importlib
import logging
import sys
import traceback
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeAlias, TypeVar

import structlog
from opentelemetry import metrics, trace
from sqlalchemy import event

from qortex_db.errors import QortexDbError
from qortex_db.translation import translate

if TYPE_CHECKING:
    import weakref
    from collections.abc import Awaitable, Callable

    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import ExceptionContext
    from sqlalchemy.ext.asyncio import AsyncEngine

P = ParamSpec("P")
T = TypeVar("T")

_Listener: TypeAlias = "tuple[weakref.ref[Engine], str, Callable[..., object]]"

_INSTRUMENTATION: Final = "opentelemetry.instrumentation.sqlalchemy"

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
                    _tell_of(span, error)
                    raise

        return wrapper

    return decorate


def _tell_of(span: trace.Span, error: BaseException) -> None:
    """Record an error in a span, by its type; what it says only where it is ours."""
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    said = {"exception.message": str(error)} if isinstance(error, QortexDbError) else {}
    stack = "".join(traceback.format_tb(error.__traceback__))
    span.add_event("exception", {"exception.type": name, "exception.stacktrace": stack, **said})
    span.set_status(trace.StatusCode.ERROR, f"{name}: {error}" if said else name)


def instrument(engine: AsyncEngine, *, enabled: bool) -> None:
    """Give every statement of one engine one span, by OpenTelemetry's instrumentation.

    Where a host instruments all engines of its process, its spans are those.

    Args:
        enabled: Whether there are spans where no host made them. Without, and with no host's,
            the engine is left alone: one that is listened to is slower.
    """
    own = engine.sync_engine
    if not _listeners(own) and not (enabled and _trace_statements(own)):
        return
    _leave_one_tracer(own)
    event.listen(own, "handle_error", _end_span)


def uninstrument(engine: AsyncEngine) -> None:
    """Take OpenTelemetry's instrumentation off one engine: off it alone, and none is fine."""
    for each in _listeners(engine.sync_engine):
        _remove(engine.sync_engine, each)


def _tracers() -> Any:
    """The instrumentation's class of what listens to an engine, if anybody imported it."""
    module = sys.modules.get(f"{_INSTRUMENTATION}.engine")
    return getattr(module, "EngineTracer", None)


def _listeners(engine: Engine) -> list[_Listener]:
    """What of the instrumentation listens to an engine, in the order of its coming."""
    everywhere = getattr(_tracers(), "_remove_event_listener_params", ())
    return [each for each in everywhere if each[0]() is engine]


def _remove(engine: Engine, listener: _Listener) -> None:
    _, name, function = listener
    if event.contains(engine, name, function):
        event.remove(engine, name, function)
    _forget(listener)


def _forget(listener: _Listener) -> None:
    """Have the instrumentation not remove a listener again, which would fail."""
    _tracers()._dispose_of_event_listener(listener)  # noqa: SLF001


def _leave_one_tracer(engine: Engine) -> None:
    """Leave what is right of the instrumentation's tracers of an engine.

    It gives async engines two, where it came before SQLAlchemy was imported: the first one's spans
    would never end. What it says of an error is the driver's text, with values.
    """
    heard: dict[str, object] = {"handle_error": None}
    for each in _listeners(engine):
        _, name, function = each
        if name not in heard:
            heard[name] = function
        elif heard[name] == function:  # no method of a tracer's, so it listens once for both
            _forget(each)
        else:
            _remove(engine, each)


def _trace_statements(engine: Engine) -> bool:
    """Whether the instrumentation is installed, and now traces an engine's statements."""
    try:
        importlib.import_module(_INSTRUMENTATION)
    except ImportError:
        log.warning("otel_extra_missing", install='pip install "qortex-db[otel]"')
        return False
    # Not its `instrument`: that wraps what the whole process makes and connects, again each time.
    _tracers()(_statement_tracer(), engine, _connections_in_use())
    return True


@functools.cache  # a provider may keep each that was asked for
def _statement_tracer() -> trace.Tracer:
    return trace.get_tracer(_INSTRUMENTATION)


@functools.cache
def _connections_in_use() -> metrics.UpDownCounter:
    return metrics.get_meter(_INSTRUMENTATION).create_up_down_counter(
        "db.client.connections.usage", unit="connections", description="Connections by state"
    )


def _end_span(failed: ExceptionContext) -> None:
    context: Any = failed.execution_context
    span = getattr(context, "_otel_span", None)
    if span is None:
        return
    _tell_of(span, translate(failed.original_exception) or failed.original_exception)
    span.end()
    del context._otel_span  # noqa: SLF001 - the instrumentation's mark of a span that it has to end
