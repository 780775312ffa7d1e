"""What is told of each call of a repository's method: a span, its time, its rows, its errors."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import Mapping, Sequence, Sized
from contextlib import aclosing, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from qortex_db.errors import OverloadedError, PoolTimeoutError, QortexDbError
from qortex_db.observability import metrics, spans
from qortex_db.observability.apart import apart
from qortex_db.observability.logs import log

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator

    from opentelemetry.trace import Span

T = TypeVar("T", bound=type[Any])

_EXHAUSTED_SECONDS: Final = 10.0
"""How often it is logged that a pool is exhausted: then all calls meet it."""

# In these an answer has its rows, where it is no collection of them.
_PARTS: Final = ("ids", "records", "hits", "weights", "selected")

_within: ContextVar[str | None] = ContextVar("qortex_db_call", default=None)
"""The method that is under way: those that it calls in turn are its own business."""
_exhausted_until = 0.0


@dataclass(frozen=True, slots=True)
class Subject:
    """What a repository's calls are about.

    Attributes:
        collection: The table.
        slow_seconds: A call that takes longer is logged; None for none.
    """

    collection: str
    slow_seconds: float | None


def method() -> str:
    """The name of the public method that is under way."""
    return _within.get() or metrics.OTHER


@contextmanager
def outside() -> Iterator[None]:
    """A caller's own code, inside a call: calls that it makes are told of as any others."""
    outer = _within.get()
    _within.set(None)
    try:
        yield
    finally:
        _within.set(outer)


async def call_theirs(function: Callable[..., Any], *args: Any) -> Any:
    """What a caller's function gives, or is awaited to give; in a thread, since it may block."""
    with outside():
        # An async function only makes its coroutine there.
        given = await asyncio.to_thread(function, *args)
        return await given if inspect.isawaitable(given) else given


def observed(
    repository: str,
    *,
    writes: Collection[str] = (),
    searches: Collection[str] = (),
    long: Collection[str] = (),
) -> Callable[[T], T]:
    """Have all public methods of a repository told of, where it has `_subject` of that name.

    Args:
        repository: What spans call it.
        writes: Methods whose answer says what was written.
        searches: Those that compare vectors.
        long: Those that are meant to take long, so that none is slow.
    """

    def decorate(owner: T) -> T:
        for name, function in inspect.getmembers(owner, inspect.isfunction):
            if name.startswith("_"):
                continue
            of = _Method(function, repository, name in writes, name in searches, name not in long)
            if inspect.isasyncgenfunction(function):
                setattr(owner, name, of.streamed())
            elif inspect.iscoroutinefunction(function):
                setattr(owner, name, of.called())
        return owner

    return decorate


class _Method:
    """One method, and how it is told of."""

    def __init__(
        self,
        function: Callable[..., Any],
        repository: str,
        writes: bool,  # noqa: FBT001 - private
        searches: bool,  # noqa: FBT001
        may_be_slow: bool,  # noqa: FBT001
    ) -> None:
        self._function = function
        self._name = function.__name__
        self._full_name = f"{repository}.{self._name}"
        self._writes = writes
        self._searches = searches
        self._may_be_slow = may_be_slow
        limit = inspect.signature(function).parameters.get("limit")
        self._limit = limit.default if limit is not None else None

    def called(self) -> Callable[..., Any]:
        function, name, writes = self._function, self._name, self._writes

        @functools.wraps(function)
        async def call(self_: Any, *args: Any, **options: Any) -> Any:
            if _within.get() is not None:
                return await function(self_, *args, **options)
            _within.set(name)
            start = time.perf_counter()
            span = None
            try:
                if not spans.are_recorded():
                    given = await function(self_, *args, **options)
                else:
                    span = self._span(self_, options)
                    with spans.inside(span):
                        given = await function(self_, *args, **options)
                seconds = time.perf_counter() - start
                slow = self_._subject.slow_seconds  # noqa: SLF001
                if span is not None or metrics.are_measured() or _is_slow(seconds, slow):
                    with apart():
                        asked = (*args, *options.values())
                        rows = _written(given, asked) if writes else _read(given)
                        self._tell(self_._subject, seconds, rows, span, given)  # noqa: SLF001
            except (Exception, asyncio.CancelledError) as error:
                with apart():
                    seconds = time.perf_counter() - start
                    self._tell_of(self_._subject, seconds, error)  # noqa: SLF001
                raise
            finally:
                _within.set(None)
                if span is not None:
                    spans.end(span)
            return given

        return call

    def streamed(self) -> Callable[..., Any]:
        function, name = self._function, self._name

        @functools.wraps(function)
        async def stream(self_: Any, *args: Any, **options: Any) -> AsyncIterator[Any]:
            # Whoever reads it does other things meanwhile: they are no part of it.
            outer = _within.get()
            span = self._span(self_, options) if spans.are_recorded() and not outer else None
            rows, seconds, failed = 0, 0.0, False
            try:
                async with aclosing(function(self_, *args, **options)) as items:
                    while True:
                        start = time.perf_counter()
                        _within.set(outer or name)
                        try:
                            with nullcontext() if span is None else spans.inside(span):
                                item = await anext(items, None)
                        finally:
                            _within.set(outer)
                        seconds += time.perf_counter() - start
                        if item is None:
                            break
                        with apart():
                            rows += 1 if hasattr(item, "id") else _read(item)  # or a batch
                        yield item
            except (Exception, asyncio.CancelledError) as error:
                failed = True
                if outer is None:
                    with apart():
                        self._tell_of(self_._subject, seconds, error)  # noqa: SLF001
                raise
            finally:  # it may be left early
                if outer is None and not failed:
                    with apart():
                        self._tell(self_._subject, seconds, rows, span)  # noqa: SLF001
                if span is not None:
                    spans.end(span)

        return stream

    def _span(self, repository: Any, options: Mapping[str, Any]) -> Span:
        attributes = {
            spans.SYSTEM: "postgresql",
            spans.OPERATION: self._name,
            spans.COLLECTION: repository._subject.collection,  # noqa: SLF001
        }
        limit = options.get("limit", self._limit)
        if type(limit) is int:
            attributes[spans.LIMIT] = limit
        return spans.begun(f"qortex_db.{self._full_name}", attributes)

    def _tell(
        self,
        subject: Subject,
        seconds: float,
        rows: int,
        span: Span | None,
        given: Any = None,
    ) -> None:
        self._measure(subject, seconds, rows, given)
        if span is not None:
            span.set_attribute(spans.WRITTEN_ROWS if self._writes else spans.RETURNED_ROWS, rows)
        if _is_slow(seconds, subject.slow_seconds) and self._may_be_slow:
            metrics.slow_calls_total.add(1, _labels(subject, self._name))
            log.warning(
                "slow_call",
                method=self._full_name,
                collection=subject.collection,
                seconds=round(seconds, 3),
                slow_call_seconds=subject.slow_seconds,
                rows=rows,
            )

    def _measure(self, subject: Subject, seconds: float, rows: int, given: Any) -> None:
        labels = _labels(subject, self._name)
        metrics.call_duration.record(seconds, labels)
        (metrics.rows_written_total if self._writes else metrics.rows_read_total).add(rows, labels)
        if self._searches:
            metrics.vec_search_duration.record(seconds, labels)
            for answer in given if self._name == "search_many" else (given,):
                _tell_of_hits(answer, labels)

    def _tell_of(self, subject: Subject, seconds: float, error: BaseException) -> None:
        labels = _labels(subject, self._name)
        is_known = isinstance(error, (QortexDbError, asyncio.CancelledError))
        kind = type(error).__name__ if is_known else metrics.OTHER
        metrics.call_duration.record(seconds, labels)
        metrics.errors_total.add(1, {**labels, "error": kind})
        if isinstance(error, (PoolTimeoutError, OverloadedError)):
            _tell_of_exhaustion(self._full_name, error)


def _is_slow(seconds: float, threshold: float | None) -> bool:
    return threshold is not None and seconds > threshold


def _labels(subject: Subject, name: str) -> dict[str, str]:
    return {**metrics.label("collection", subject.collection), "method": name}


def _written(given: Any, asked: Iterable[Any]) -> int:
    """How many rows a write is about: it says so, or gives them, or wrote what it was given."""
    if isinstance(given, int):
        return int(given)
    if given is None:
        first = next(iter(asked), None)
        return len(first) if isinstance(first, Mapping) else 1
    return _read(getattr(given, "new", given))


def _read(given: Any) -> int:
    """How many rows an answer has."""
    if isinstance(given, Mapping) or (isinstance(given, Sequence) and not isinstance(given, str)):
        all_of_it = given.values() if isinstance(given, Mapping) else given
        # Arms by context, the hits of several queries, or groups of hits; what a context stands for
        # may be None.
        parts: list[Any] = [getattr(part, "hits", part) for part in all_of_it]
        is_nested = all(
            isinstance(part, (Mapping, Sequence)) and not isinstance(part, (str, tuple))
            for part in parts
        )
        return sum(map(len, parts)) if is_nested else len(given)
    for name in _PARTS:
        if isinstance(part := getattr(given, name, None), Sized):
            return len(part)
    return len(given) if isinstance(given, Sized) else int(given is not None)


def _tell_of_hits(hits: Any, labels: Mapping[str, str]) -> None:
    if hits is None:  # a stream gave them one by one
        return
    metrics.vec_search_candidates.record(_read(hits), labels)
    if not hits or not hasattr(hits[0], "score"):
        return  # groups, or none
    metrics.vec_search_top_score.set(hits[0].score, labels)
    metrics.vec_search_score_spread.set(hits[0].score - hits[-1].score, labels)


def _tell_of_exhaustion(name: str, error: QortexDbError) -> None:
    global _exhausted_until  # noqa: PLW0603 - one log line for all calls of the process
    now = time.monotonic()
    if now < _exhausted_until:
        return
    _exhausted_until = now + _EXHAUSTED_SECONDS
    log.warning("pool_exhausted", method=name, why=str(error))
