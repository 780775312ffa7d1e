"""What is told of work that is begun again."""

from __future__ import annotations

from qortex_db.observability import calls, metrics
from qortex_db.observability.logs import log
from qortex_db.translation import sqlstate_of


def tell_of_retry(reason: str, error: BaseException, *, is_first: bool) -> None:
    """Count it, and log the first of a call's.

    Args:
        reason: Why, in words of ours.
        error: What was met; told by its type and SQLSTATE, since what it says quotes values.
    """
    metrics.retries_total.add(1, {"reason": reason})
    if is_first:
        log.warning(
            "retry",
            method=calls.method(),
            reason=reason,
            error=type(error).__name__,
            sqlstate=sqlstate_of(error),
        )
