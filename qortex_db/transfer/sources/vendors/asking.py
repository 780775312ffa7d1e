"""A client is asked: again where its server is busy, and its errors are told as ours."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NoReturn, ParamSpec, TypeAlias, TypeVar
from urllib.parse import urlsplit

from qortex_db.errors import (
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    QortexDbError,
    UnavailableError,
)
from qortex_db.messages import shown
from qortex_db.transfer.sources.threads import OneThread

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

P = ParamSpec("P")
T = TypeVar("T")

Fault: TypeAlias = Literal["away", "busy", "denied", "missing", "invalid"]
"""What a client's error says: nobody answers, try again, who are you, not here, not so."""
PAUSES: Final = (0.5, 2.0, 5.0)
"""Seconds before each further try of what a server did not answer, or was too busy for."""
TIMEOUT_SECONDS: Final = 60.0
"""How long a server may take for one answer, unless said otherwise."""


def fault_of_status(status: int | None) -> Fault | None:
    """What a status of HTTP says."""
    if status is None:
        return None
    if status in (401, 403):
        return "denied"
    if status in (408, 425, 429) or status >= 500:  # noqa: PLR2004 - HTTP's own numbers
        return "busy"
    if status == 404:  # noqa: PLR2004
        return "missing"
    return "invalid" if status >= 400 else None  # noqa: PLR2004


def host_of(url: str) -> str:
    """A server's address without what may be secret: a user, a password, a query."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    at = f"{host}:{parts.port}" if parts.port else host
    return f"{parts.scheme}://{at}{parts.path.rstrip('/')}"


def place_of(location: str) -> str:
    """A server's address without what may be secret, or the whole path of a folder or a file."""
    return host_of(location) if is_url(location) else str(Path(location).resolve())


def as_seconds(value: float | str) -> float:
    """A time-out, which a command line gives as a text.

    Raises:
        InvalidInputError: It is no positive number.
    """
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise InvalidInputError("timeout_seconds has to be a positive number.")
    return seconds


def is_url(location: str) -> bool:
    """Whether it names a server, and not a folder or a file."""
    return "://" in location


class Asker:
    """Runs a client's calls in a thread of its own.

    Args:
        what: The source and its place, for messages; without a key.
        fault_of: What an error of the client's says; None where it can't tell.
    """

    def __init__(self, what: str, fault_of: Callable[[Exception], Fault | None]) -> None:
        self.what = what
        self._fault_of = fault_of
        self._thread = OneThread()

    async def once(self, call: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """What the call gives, asked once."""
        try:
            return await self._thread.run(call, *args, **options)
        except Exception as error:  # noqa: BLE001 - a client raises what it likes
            self._tell(error)

    async def __call__(self, call: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """What the call gives; asked again, after a pause, where the server does not answer."""
        for pause in PAUSES:
            try:
                return await self._thread.run(call, *args, **options)
            except Exception as error:  # noqa: BLE001 - the same
                if self._fault_of(error) not in ("away", "busy"):
                    self._tell(error)
            await asyncio.sleep(pause)
        return await self.once(call, *args, **options)

    async def close(self, call: Callable[[], object] | None) -> None:
        """Close the client, whatever it says to that, and end the thread."""
        try:
            if call is not None:
                await self._thread.run(call)
        except Exception:  # noqa: BLE001, S110 - it was only read: nothing is lost
            pass
        finally:
            self._thread.close()

    def _tell(self, error: Exception) -> NoReturn:
        if isinstance(error, QortexDbError):
            raise error
        match self._fault_of(error):
            case "away":
                raise UnavailableError(
                    f"{self.what} can't be reached, or did not answer in time "
                    f"({type(error).__name__}). See that it runs and that its address is right, "
                    "and run this again: it goes on where it stopped."
                ) from None
            case "busy":
                raise UnavailableError(
                    f"{self.what} refused the last of {len(PAUSES) + 1} tries as too busy or "
                    f"failing ({type(error).__name__}). Run this again later: it goes on where it "
                    "stopped."
                ) from None
            case "denied":
                raise PermissionDeniedError(
                    f"{self.what} refuses the key, or asks for one: pass an api_key that may read."
                ) from None
            case "missing":
                raise NotFoundError(f"{self.what} has not what was asked for.") from None
            case "invalid":
                raise InvalidInputError(
                    f"{self.what} does not take the request ({type(error).__name__}): its version "
                    "may be another than its client's."
                ) from None
        # What it says is its own affair, and may quote rows: the cause has it.
        raise QortexDbError(
            f"{self.what}: its client failed with {type(error).__name__}."
        ) from error


def chosen(collection: str | None, there: Collection[str], what: str, word: str) -> str:
    """The collection that is asked for, or the only one.

    Args:
        there: The names of those that there are.
        what: The source and its place.
        word: What the source calls one.

    Raises:
        NotFoundError: It is not there, or there is none.
        InvalidInputError: None is named, and there are several.
    """
    names = ", ".join(map(shown, sorted(there)[:_MOST_NAMES]))
    if len(there) > _MOST_NAMES:
        names += f" and {len(there) - _MOST_NAMES} more"
    if collection is None:
        if len(there) == 1:
            return next(iter(there))
        if not there:
            raise NotFoundError(f"{what} has no {word}.")
        raise InvalidInputError(f"{what} has several: name the {word}, one of {names}.")
    if collection not in there:
        raise NotFoundError(
            f"{what} has no {word} {shown(collection)}; there is {names or 'none'}."
        )
    return collection


_MOST_NAMES: Final = 20
