"""A whole piece of work run again: after pauses by chance, bounded in tries and in time."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from typing import TYPE_CHECKING, Final, TypeVar

from qortex_db.errors import (
    InFailedTransactionError,
    OutcomeUnknownError,
    QortexDbError,
    SerializationConflictError,
    UnavailableError,
)
from qortex_db.observability.retrying import tell_of_retry
from qortex_db.translation import translate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

MAX_ATTEMPTS: Final = 10
TIMEOUT_SECONDS: Final = 30.0
_FIRST_PAUSE_SECONDS: Final = 0.02
_LONGEST_PAUSE_SECONDS: Final = 1.0


async def run_again(
    work: Callable[[], Awaitable[T]],
    *,
    max_attempts: int,
    timeout_seconds: float,
    unavailable: bool,
    in_doubt: bool,
) -> T:
    """Run work until it succeeds, fails for good, or the tries or the time are used up.

    The pauses are of any length up to a bound that doubles, so that those who met don't meet again.

    Args:
        work: A whole transaction.
        max_attempts: How often it is begun at most.
        timeout_seconds: After which it is begun no more.
        unavailable: Whether it may be repeated where the server went away, or can't be reached.
        in_doubt: Whether also where its COMMIT may have happened.

    Source:
        https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ (full jitter)
    """
    deadline = time.monotonic() + timeout_seconds
    longest = _FIRST_PAUSE_SECONDS
    for left in itertools.count(max_attempts - 1, -1):
        pause = random.uniform(0, longest)  # noqa: S311 - no secret
        longest = min(_LONGEST_PAUSE_SECONDS, 2 * longest)
        try:
            return await work()
        except Exception as error:
            again = _may_repeat(error, unavailable=unavailable, in_doubt=in_doubt)
            if not again or left <= 0 or time.monotonic() + pause >= deadline:
                raise
            tell_of_retry("transaction", error, is_first=left == max_attempts - 1)
        await asyncio.sleep(pause)
    raise AssertionError  # it counts for ever


def _may_repeat(error: Exception, *, unavailable: bool, in_doubt: bool) -> bool:
    met: BaseException | None = error
    if isinstance(error, InFailedTransactionError):  # the block caught what aborted it
        met = error.__cause__
    if not isinstance(met, QortexDbError):  # a statement of the caller's own
        met = translate(error)
    if isinstance(met, SerializationConflictError):
        return True
    if isinstance(met, OutcomeUnknownError):
        return in_doubt
    return unavailable and isinstance(met, UnavailableError)
