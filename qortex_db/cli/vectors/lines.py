"""Files and standard streams, whose lines a thread reads: a signal is not kept waiting."""

from __future__ import annotations

import asyncio
import gzip
import sys
import threading
from contextlib import contextmanager
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Final, cast

from qortex_db.errors import InvalidInputError, LimitExceededError
from qortex_db.transfer.sources.in_files.json_lines import numbered_lines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

_AT_ONCE: Final = 100
_AHEAD: Final = 2


def opened(path: Path) -> IO[bytes]:
    """A file to read, or the standard input for `-`; `.gz` is compressed.

    Raises:
        InvalidInputError: It can't be opened.
    """
    if str(path) == "-":
        # Of our own: Python would wait, on its way out, for a thread that reads its own one.
        return open(sys.stdin.fileno(), "rb", closefd=False)
    return _file(path, "rb")


def read_whole(path: Path, most: int) -> bytes:
    """What is in a file, or on the standard input.

    Raises:
        InvalidInputError: It can't be opened or read.
        LimitExceededError: It is more than that many bytes.
    """
    with opened(path) as file:
        try:
            given = file.read(most + 1)
        except (OSError, EOFError) as error:
            raise InvalidInputError(f"{path} can't be read ({type(error).__name__}).") from error
    if len(given) > most:
        what = "The standard input" if str(path) == "-" else f"{path}"
        raise LimitExceededError(
            f"{what} has more than {most:,} bytes, the most of one embedding (MAX_EMBEDDING_BYTES)."
            " Name a file with one JSON array.",
            limit="MAX_EMBEDDING_BYTES",
            allowed=most,
            actual=len(given),
        )
    return given


@contextmanager
def written_to(path: Path) -> Iterator[IO[bytes]]:
    """The same to write: a file, or the standard output.

    Raises:
        InvalidInputError: It can't be opened.
    """
    if str(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with _file(path, "wb") as file:
        yield file


def _file(path: Path, mode: str) -> IO[bytes]:
    try:
        if path.suffix == ".gz":
            return cast("IO[bytes]", gzip.open(path, mode))
        return path.open(mode)
    except OSError as error:
        raise InvalidInputError(f"{path} can't be opened: {error.strerror}.") from None


async def lines_of(path: Path) -> AsyncIterator[tuple[int, bytes]]:
    """Each line that is not blank, with its number from 1 on; one that is too long is empty.

    Raises:
        InvalidInputError: The file can't be read.
    """
    file = opened(path)
    loop = asyncio.get_running_loop()
    read: asyncio.Queue[Any] = asyncio.Queue(_AHEAD)

    def put(item: object) -> None:
        asyncio.run_coroutine_threadsafe(read.put(item), loop).result()

    def work() -> None:
        try:
            with file:
                lines = numbered_lines(file)  # type: ignore[arg-type]
                while some := list(islice(lines, _AT_ONCE)):
                    put(some)
            put(None)
        except Exception as error:  # noqa: BLE001 - raised where the lines are awaited
            put(error)

    # A daemon, since nothing ends a read of a terminal or of a pipe.
    threading.Thread(target=work, daemon=True).start()
    while (found := await read.get()) is not None:
        if isinstance(found, (OSError, EOFError)):
            raise InvalidInputError(f"{path} can't be read ({type(found).__name__}).") from found
        if isinstance(found, Exception):
            raise found
        for each in found:
            yield each
