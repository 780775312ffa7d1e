"""A bandit's candidates, their posteriors, and the contexts that partition them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping  # noqa: TC003 - pydantic resolves annotations
from dataclasses import asdict, dataclass, field
from typing import Any

from qortex_db.errors import InvalidContextError
from qortex_db.times import iso_when_read

DEFAULT_CONTEXT = "default"


@dataclass(frozen=True, slots=True)
class Arm:
    """A candidate.

    Attributes:
        id: Its key, by custom "type:category:id".
        token_cost: What choosing it spends of a token budget.
        metadata: The caller's own.
    """

    id: str
    token_cost: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)


@iso_when_read("last_updated")
@dataclass(slots=True)
class ArmState:
    """The Beta posterior of an arm; the default is the prior, Beta(1, 1).

    Attributes:
        alpha: 1 + the rewards.
        beta: 1 + what the rewards missed of 1.
        pulls: How many rewards were observed.
        total_reward: The sum of the rewards.
        last_updated: ISO 8601 in UTC, "" where unknown.
    """

    alpha: float = 1.0
    beta: float = 1.0
    pulls: int = 0
    total_reward: float = 0.0
    last_updated: str = ""

    @property
    def mean(self) -> float:
        """The posterior mean, alpha / (alpha + beta)."""
        return self.alpha / (self.alpha + self.beta)

    def to_dict(self) -> dict[str, Any]:
        """The attributes, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ArmState:
        """The inverse of `to_dict`; what is missing gets the prior's value."""
        prior = cls()
        return cls(**{name: data.get(name, value) for name, value in asdict(prior).items()})


def context_hash(context: Mapping[str, Any] | None) -> str:
    """The key of a context: "default" for an empty one, else 16 hex digits.

    Stored data depends on it, byte for byte: `{"a": 1}` and `{"a": 1.0}` differ.

    Raises:
        InvalidContextError: Python's `json` cannot say the context; a TypeError, as in qortex.
    """
    try:
        if not context:
            return DEFAULT_CONTEXT
        return hash_of_json(canonical_json(context))
    except Exception as error:  # noqa: BLE001 - of json, or of what is in the context
        failed = type(error).__name__
    raise InvalidContextError(f"context holds something that JSON can't say ({failed}).")


def hash_of_json(text: str) -> str:
    """The key of a context by its canonical JSON."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def canonical_json(context: Mapping[str, Any]) -> str:
    """The one text of a context that is hashed."""
    return json.dumps(context, sort_keys=True, separators=(",", ":"))
