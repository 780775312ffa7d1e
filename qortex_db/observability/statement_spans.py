"""OpenTelemetry's spans of statements: one each, whichever way a statement goes to the server."""

from __future__ import annotations

import functools
import importlib
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from opentelemetry import metrics, trace
from sqlalchemy import Engine, event

from qortex_db.observability.apart import apart
from qortex_db.observability.logs import log
from qortex_db.observability.spans import end, tell_of
from qortex_db.translation import translate

if TYPE_CHECKING:
    import weakref
    from collections.abc import Awaitable, Callable

    from sqlalchemy import Connection
    from sqlalchemy.engine.interfaces import ExceptionContext
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")

_Listener: TypeAlias = "tuple[weakref.ref[Engine], str, Callable[..., object]]"

_INSTRUMENTATION: Final = "opentelemetry.instrumentation.sqlalchemy"


class StatementSpans:
    """The instrumentation's listeners of an engine, run around what the driver runs by itself.

    They are told of no connection and of no cursor: what they look for there, asyncpg lacks.
    """

    def __init__(self, engine: Engine, listeners: list[tuple[str, Any]]) -> None:
        self._connection = SimpleNamespace(engine=engine)
        self._of = {
            name: [listener for each, listener in listeners if each == name]
            for name in ("before_cursor_execute", "after_cursor_execute", "handle_error")
        }

    async def around(self, sql: str, work: Awaitable[T]) -> T:
        """Await work that runs a statement."""
        context = SimpleNamespace()
        told = (self._connection, None, sql, (), context, False)
        self._tell("before_cursor_execute", *told)
        try:
            given = await work
        except BaseException as error:
            failed = SimpleNamespace(execution_context=context, original_exception=error)
            self._tell("handle_error", failed)
            raise
        self._tell("after_cursor_execute", *told)
        return given

    def _tell(self, name: str, *told: object) -> None:
        for listener in self._of[name]:
            with apart():
                listener(*told)


def listener_of(of: Engine | Connection) -> StatementSpans | bool:
    """Who listens to statements: nobody, the instrumentation alone, or others (True).

    Those of others go SQLAlchemy's whole way, which alone has all that they may ask for. The test
    is SQLAlchemy's own, which has no public name.
    """
    asked: Any = of
    engine: Any = asked.engine
    logs = engine._should_log_info()  # noqa: SLF001
    if not (asked._has_events or engine._has_events or engine.dialect._has_events or logs):  # noqa: SLF001
        return False
    if logs or _tracers() is None:
        return True
    listeners = _heard(of)
    if not all(is_of_spans(listener) for _, listener in listeners):
        return True
    return StatementSpans(engine, listeners) if listeners else False


def _heard(of: Engine | Connection) -> list[tuple[str, Any]]:
    """All that listens to an engine, or one connection, but for the pool."""
    found = []
    of_class: Any = Engine.dispatch
    of_dialect: Any = of.dialect.dispatch
    # No public names; what is derived from an engine has none itself.
    for dispatch, names in (
        (of.dispatch, of_class._event_names),  # noqa: SLF001
        (of_dialect, of_dialect._event_names),  # noqa: SLF001
    ):
        for name in names:
            if listeners := getattr(dispatch, name):
                found += [(name, each) for each in listeners]
    return found


def is_of_spans(listener: Any) -> bool:
    """Whether it is the instrumentation's, and leaves statements alone; it never awaits."""
    tracer = getattr(listener, "__self__", None)
    if tracer is not None:
        return type(tracer) is _tracers() and not tracer.enable_commenter
    return listener is _end_span or listener.__module__ == f"{_INSTRUMENTATION}.engine"


def instrument(engine: AsyncEngine, *, enabled: bool, statements: bool) -> None:
    """Give every statement of one engine one span, by OpenTelemetry's instrumentation.

    Where a host instruments all engines of its process, its spans are those.

    Args:
        enabled: Whether there are spans where no host made them. Without, and with no host's,
            the engine is left alone: one that is listened to is slower.
        statements: Whether statements have spans at all.
    """
    own = engine.sync_engine
    if not statements:
        uninstrument(engine)
        return
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
    tell_of(span, translate(failed.original_exception) or failed.original_exception)
    end(span)
    del context._otel_span  # noqa: SLF001 - the instrumentation's mark of a span that it has to end
