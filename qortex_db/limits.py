"""The most of what a stranger may send, by names; `Settings` has the same."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final, Literal, TypeAlias, get_args

from qortex_db.errors import InvalidInputError, LimitExceededError

Complete: TypeAlias = Literal["always", "auto", "never"]
"""Whether a search whose index finds too few rows compares with every row: however many the table
has, up to `max_compared_rows`, or never."""

DEEPEST: Final = 200
"""The most that nesting may be allowed: far from Python's recursion limit."""
MOST_PROBED: Final = 100_000
"""The most rows that may be compared in the place of an index."""
_LONGEST_SECONDS: Final = 86_400
_HIGHEST: Final = {"max_payload_depth": DEEPEST, "max_probed_rows": MOST_PROBED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one call may bring, and cost, at most.

    Attributes:
        max_payload_bytes: A payload as JSON, in UTF-8; what `merge_payload` puts in, too.
        max_payload_depth: How deeply its objects and arrays are nested, to 200.
        max_key_bytes: A key in it.
        max_document_bytes: A document, a text in a host's own column, or one to be embedded.
        max_filter_values: The values in a filter in sum, of all its lists.
        max_filter_bytes: What they take.
        max_search_many_hits: Queries times limit, of one `search_many`.
        max_items: Ids, records, observations, weights, edges or texts of one call; `ingest` takes
            any number, so many a batch.
        max_context_bytes: An arm's context as JSON.
        complete: Whether a search compares with every row where its index finds too few; a call may
            say otherwise.
        max_compared_rows: With "auto", the most rows of a table for that.
        max_probed_rows: Up to so many rows that a filter's own index finds are compared each, in
            the place of the vectors' index; 0 for none.
        slow_call_seconds: A call that takes longer is logged, by its method; None for none.

    Raises:
        InvalidInputError: A limit is no whole number in its range.
    """

    max_payload_bytes: int = 4 * 2**20
    max_payload_depth: int = 100
    max_key_bytes: int = 1_024
    max_document_bytes: int = 4 * 2**20
    max_filter_values: int = 50_000
    max_filter_bytes: int = 4 * 2**20
    max_search_many_hits: int = 100_000
    max_items: int = 1_000_000
    max_context_bytes: int = 64 * 2**10
    complete: Complete = "always"
    max_compared_rows: int = 100_000
    max_probed_rows: int = 2_500
    slow_call_seconds: float | None = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "complete":
                if type(value) is not str or value not in get_args(Complete):
                    raise InvalidInputError('complete has to be "always", "auto" or "never".')
                continue
            if field.name == "slow_call_seconds":
                _check_slow(value)
                continue
            low = 0 if field.name == "max_probed_rows" else 1
            high = _HIGHEST.get(field.name, 2**31 - 1)
            if type(value) is not int or not low <= value <= high:
                raise InvalidInputError(
                    f"{field.name} has to be a whole number from {low} to {high:,}."
                )

    def check(self, limit: str, actual: int, name: str, unit: str = "bytes") -> None:
        """Refuse what is more than allowed.

        Args:
            limit: The limit's name.
            actual: How much there is, at least.
            name: What an error calls it.
            unit: Of what.

        Raises:
            LimitExceededError: It is more.
        """
        if actual > getattr(self, limit):
            raise self.exceeded(limit, actual, f"{name} has {actual:,} {unit} or more")

    def exceeded(self, limit: str, actual: int, what: str) -> LimitExceededError:
        """The error that says what is too much, and what to do."""
        allowed = getattr(self, limit)
        return LimitExceededError(
            f"{what}; {limit} allows {allowed:,}. Send less, or raise it by Settings(), "
            f"QORTEX_DB_{limit.upper()} or a host's Limits().",
            limit=limit,
            allowed=allowed,
            actual=actual,
        )

    def check_text(self, limit: str, text: str, name: str) -> None:
        """The same of a text's bytes in UTF-8."""
        allowed = getattr(self, limit)
        if len(text) > allowed:
            self.check(limit, len(text), name)
        if len(text) * 4 > allowed and not text.isascii():
            self.check(limit, len(text.encode()), name)


def _check_slow(seconds: Any) -> None:
    """Refuse what is no time.

    Raises:
        InvalidInputError: It is none.
    """
    if seconds is None:
        return
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not is_number or not 0 <= seconds <= _LONGEST_SECONDS:
        raise InvalidInputError(
            f"slow_call_seconds has to be None or a number from 0 to {_LONGEST_SECONDS:,}."
        )


DEFAULT_LIMITS: Final = Limits()
