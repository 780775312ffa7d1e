"""Spans, and what they say of errors; silent until a host gives OpenTelemetry a provider."""

from __future__ import annotations

import functools
import traceback
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from opentelemetry import trace

from qortex_db.errors import QortexDbError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

P = ParamSpec("P")
T = TypeVar("T")

_tracer = trace.get_tracer("qortex_db")


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
