"""Spans, and what they say of errors; silent until OpenTelemetry has a provider."""

from __future__ import annotations

import functools
import traceback
from asyncio import CancelledError
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from opentelemetry import trace

from qortex_db.errors import QortexDbError
from qortex_db.observability.apart import apart

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

P = ParamSpec("P")
T = TypeVar("T")

# https://opentelemetry.io/docs/specs/semconv/database/
SYSTEM: Final = "db.system.name"
OPERATION: Final = "db.operation.name"
COLLECTION: Final = "db.collection.name"
RETURNED_ROWS: Final = "db.response.returned_rows"
ERROR_TYPE: Final = "error.type"
# Which it has no name for.
WRITTEN_ROWS: Final = "qortex_db.written_rows"
LIMIT: Final = "qortex_db.limit"

_tracer = trace.get_tracer("qortex_db")


def are_recorded() -> bool:
    """Whether anybody may record spans: an empty one takes as long as a hundredth of a search."""
    if getattr(trace, "_TRACER_PROVIDER", True) is None:  # `get_tracer_provider` asks the OS first
        return False
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def traced(name: str) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
    """Put a coroutine function into a span of this name."""

    def decorate(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        @functools.wraps(function)
        async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            if not are_recorded():
                return await function(*args, **kwargs)
            span = begun(name, {SYSTEM: "postgresql"})
            try:
                with inside(span):
                    return await function(*args, **kwargs)
            finally:
                end(span)

        return wrapper

    return decorate


def begun(name: str, attributes: Mapping[str, Any]) -> trace.Span:
    """A span that has begun, and is no other's parent yet."""
    with apart():
        return _tracer.start_span(name, attributes=attributes)
    return trace.INVALID_SPAN


@contextmanager
def inside(span: trace.Span) -> Iterator[None]:
    """What runs in a span, which tells of an error; `end` it afterwards."""
    # What OpenTelemetry records of an error by itself quotes values, as its causes do.
    with trace.use_span(span, record_exception=False, set_status_on_exception=False):
        try:
            yield
        except (Exception, CancelledError) as error:
            tell_of(span, error)
            raise


def tell_of(span: trace.Span, error: BaseException) -> None:
    """Record an error in a span, by its type; what it says only where it is ours."""
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    said = {"exception.message": str(error)} if isinstance(error, QortexDbError) else {}
    stack = "".join(traceback.format_tb(error.__traceback__))
    with apart():
        span.add_event("exception", {"exception.type": name, "exception.stacktrace": stack, **said})
        span.set_attribute(ERROR_TYPE, name)
        span.set_status(trace.StatusCode.ERROR, f"{name}: {error}" if said else name)


def end(span: trace.Span) -> None:
    """End it, which is when processors of a host's are given it."""
    with apart():
        span.end()
