"""The one loop that waits for who is in the way: by short tries, with pauses, to a deadline."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from sqlalchemy.util import await_only

if TYPE_CHECKING:
    from collections.abc import Callable

    from qortex_db.errors import LockTimeoutError


class BusyError(Exception):
    """Somebody is in the way.

    Args:
        refusal: What to raise if that is so until the end.
    """

    def __init__(self, refusal: LockTimeoutError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


def try_until(
    attempt: Callable[[], None],
    *,
    seconds: float,
    pause: float,
    longest_pause: float | None = None,
    on_pause: Callable[[float], object] | None = None,
) -> None:
    """Call an attempt until it raises no `BusyError`; inside SQLAlchemy's greenlet, as `run_sync`.

    Args:
        seconds: How long; the last attempt is at the end.
        pause: Between the first two, in seconds; then twice as long each time, up to the longest.
        on_pause: Called with its seconds before each.

    Raises:
        LockTimeoutError: The last attempt's refusal.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except BusyError as error:
            refusal = error.refusal
        left = deadline - time.monotonic()
        if left <= 0:
            raise refusal
        if on_pause is not None:
            on_pause(min(pause, left))
        await_only(asyncio.sleep(min(pause, left)))
        pause = min(pause * 2, longest_pause or pause)
