"""One event loop in a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import inspect
import threading
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeAlias, TypeVar

from qortex_db.engine import forks
from qortex_db.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from contextlib import AbstractContextManager
    from types import TracebackType

T = TypeVar("T")

_NAME: Final = "qortex-db"


_Call: TypeAlias = "tuple[Callable[[], Any], Future[Any]]"


class Runner(Protocol):
    """Where calls are run."""

    def call(self, work: Callable[[], Any]) -> Any:
        """Call a function there, await what it gives if that can be awaited, and wait for it."""
        ...

    def block(self, entered: AbstractAsyncContextManager[T]) -> AbstractContextManager[Any]:
        """An asynchronous block as one that waits, with the runner of the calls inside."""
        ...


class Background:
    """An event loop in a daemon thread, which begins at the first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forks = 0

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop; a child has one of its own, since threads stay in the parent."""
        with self._lock:
            if self._loop is None or self._forks != forks():
                self._loop, self._forks = asyncio.new_event_loop(), forks()
                threading.Thread(target=self._loop.run_forever, name=_NAME, daemon=True).start()
            return self._loop

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin a coroutine there.

        Raises:
            InvalidInputError: Whoever waits for it would wait for itself.
        """
        loop = self.loop()
        if asyncio._get_running_loop() is loop:  # noqa: SLF001 - the public one raises
            work.close()
            raise InvalidInputError(
                "This call would wait for the event loop that it runs in. In a callback, use an "
                "async Database."
            )
        return asyncio.run_coroutine_threadsafe(work, loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end; Ctrl-C cancels it."""
        return _result(self.submit(work))

    def call(self, work: Callable[[], Any]) -> Any:
        return self.run(_called(work))

    def block(self, entered: AbstractAsyncContextManager[T]) -> Block[T]:
        return Block(self, entered)


class Calls:
    """Calls that one task runs, of which another thread waits for each.

    A unit of work belongs to one task, and so do limits on its time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: asyncio.Queue[_Call | Exception | None] = asyncio.Queue()
        self._ended = False
        self._current: Future[Any] | None = None
        self.task: asyncio.Task[Any] | None = None

    async def serve(self) -> None:
        """Run what is called, until `end`."""
        self.task = asyncio.current_task()
        try:
            while isinstance(called := await self._waiting.get(), tuple):
                work, self._current = called
                try:
                    self._current.set_result(await _called(work))
                except Exception as error:  # noqa: BLE001 - the caller's
                    self._current.set_exception(error)
                self._current = None
            if called is not None:
                raise called
        finally:
            self._ended = True
            left = [self._current] if self._current else []
            while not self._waiting.empty():
                if isinstance(waiting := self._waiting.get_nowait(), tuple):
                    left.append(waiting[1])
            for answer in left:
                answer.cancel()

    def call(self, work: Callable[[], Any]) -> Any:
        answer: Future[Any] = Future()
        self._loop.call_soon_threadsafe(self._put, work, answer)
        try:
            return answer.result()
        except BaseException:
            if not answer.done():  # Ctrl-C: nothing can go on in this task
                self.cancel()
            raise

    def _put(self, work: Callable[[], Any], answer: Future[Any]) -> None:
        if self._ended:
            answer.cancel()
        else:
            self._waiting.put_nowait((work, answer))

    @contextmanager
    def block(self, entered: AbstractAsyncContextManager[T]) -> Iterator[tuple[T, Runner]]:
        """One inside of the task's own."""
        inside = self.call(entered.__aenter__)
        try:
            yield inside, self
        except BaseException as error:
            failed = (type(error), error, error.__traceback__)
            if not self.call(lambda: entered.__aexit__(*failed)):
                raise
        else:
            self.call(lambda: entered.__aexit__(None, None, None))

    def end(self, error: Exception | None = None) -> None:
        """Have the task go on, with an error where there is one."""
        self._loop.call_soon_threadsafe(self._waiting.put_nowait, error)

    def cancel(self) -> None:
        """End the task."""
        if self.task is not None:
            self._loop.call_soon_threadsafe(self.task.cancel)


class Block(Generic[T]):
    """An asynchronous block as one that waits: from its beginning to its end it is one task."""

    def __init__(self, background: Background, entered: AbstractAsyncContextManager[T]) -> None:
        self._background = background
        self._entered = entered
        self._ready: Future[tuple[T, Calls]] = Future()

    def __enter__(self) -> tuple[T, Calls]:
        self._whole = self._background.submit(self._run())
        try:
            inside, self._calls = self._ready.result()
        except BaseException:
            self._whole.cancel()
            raise
        return inside, self._calls

    async def _run(self) -> None:
        try:
            async with self._entered as inside:
                calls = Calls(asyncio.get_running_loop())
                self._ready.set_result((inside, calls))
                await calls.serve()
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if exc is None or isinstance(exc, Exception):
            self._calls.end(exc)
        else:  # raised there, it would end the loop
            self._calls.cancel()
        try:
            _result(self._whole)
        except BaseException as error:
            if error is exc or not isinstance(exc, (Exception, type(None))):
                return False
            raise
        return exc is not None


async def _called(work: Callable[[], Any]) -> Any:
    given = work()
    if inspect.isawaitable(given) and not isinstance(given, AbstractAsyncContextManager):
        return await given
    return given


def _result(future: Future[T]) -> T:
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


BACKGROUND: Final = Background()
"""The one that all Databases of this kind share."""
