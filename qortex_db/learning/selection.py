"""Choosing among candidates by a policy's scores, with qortex's rules around it."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping  # noqa: TC003 - pydantic resolves annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from qortex_db.learning.policies import Policy, ThompsonSampling, drawn
from qortex_db.learning.state import Arm, ArmState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

ROUNDS: Final = 1_000
"""In how many imagined rounds a probability is counted."""
_MOST_SCORES: Final = 200_000  # bounds the work over many candidates
_FEWEST_ROUNDS: Final = 100
Evidence: TypeAlias = "ArmState | tuple[float, float, int]"
"""What is known of an arm: its state, or that one's alpha, beta and pulls."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What a bandit chose.

    Attributes:
        selected: Ids, forced ones first, then best score first.
        excluded: The other ids, in the candidates' order.
        scores: The policy's for each candidate; 0.5 for the chosen of a baseline round.
        is_baseline: Whether chance alone chose, to explore.
        used_tokens: What the chosen arms cost together.
    """

    selected: tuple[str, ...]
    excluded: tuple[str, ...]
    scores: Mapping[str, float]
    is_baseline: bool
    used_tokens: int


def select(
    candidates: Sequence[Arm | str],
    states: Mapping[str, Evidence],
    *,
    k: int = 1,
    token_budget: int = 0,
    baseline_rate: float = 0.1,
    min_pulls: int = 0,
    policy: Policy | None = None,
    rng: np.random.Generator | None = None,
) -> Selection:
    """Choose among candidates by their scores.

    Args:
        candidates: Arms or ids, all distinct.
        states: Their posteriors; who is missing has the prior.
        k: How many; 0 or less means no cap.
        token_budget: What the chosen may cost together; 0 means no budget. An arm that does not
            fit is passed over for the next that does.
        baseline_rate: The probability, 0 to 1, of a round in which chance alone chooses.
        min_pulls: Arms observed less often are chosen first, whatever they cost.
        policy: Scores the candidates; by default `ThompsonSampling`.
        rng: The source of chance; pass a seeded one to get the same choice again.
    """
    rng = _chance(os.getpid()) if rng is None else rng
    rule = _Rule(candidates, states, k, token_budget, min_pulls)
    is_baseline = bool(rng.random() < baseline_rate)
    scores = rng.random(len(rule.ids)) if is_baseline else rule.scores(policy, rng, 1)[0]
    chosen, used = rule.choose(np.argsort(-scores, kind="stable").tolist())
    taken = set(chosen)
    return Selection(
        selected=tuple([rule.ids[i] for i in chosen]),
        excluded=tuple([arm_id for i, arm_id in enumerate(rule.ids) if i not in taken]),
        scores=dict.fromkeys([rule.ids[i] for i in chosen], 0.5)
        if is_baseline
        else dict(zip(rule.ids, scores.tolist(), strict=True)),
        is_baseline=is_baseline,
        used_tokens=used,
    )


@functools.lru_cache(maxsize=1)
def _chance(process: int) -> np.random.Generator:  # noqa: ARG001 - a fork's choices are its own
    """A process's own source of chance, which takes longer to make than a selection to draw."""
    return np.random.default_rng()


def probabilities(
    candidates: Sequence[Arm | str],
    states: Mapping[str, Evidence],
    selected: Iterable[str],
    *,
    k: int = 1,
    token_budget: int = 0,
    baseline_rate: float = 0.1,
    min_pulls: int = 0,
    policy: Policy | None = None,
) -> dict[str, float]:
    """How likely `select`, called like this, was to choose each of the arms that it chose.

    Counted over 1,000 imagined rounds (fewer, but at least 100, with more than 200 candidates),
    the one that happened among them, so that none is 0; the standard error is at most 0.016. The
    same states give the same numbers. Baseline rounds are weighed in by their rate: exactly where
    there is no budget, else counted too.
    """
    rule = _Rule(candidates, states, k, token_budget, min_pulls)
    selected = list(selected)
    count = len(rule.ids)
    rounds = max(_FEWEST_ROUNDS, min(ROUNDS, _MOST_SCORES // max(count, 1)))
    # Its own source: the caller's gives the same choices whether or not they are logged.
    rng = np.random.default_rng(0)
    chosen = set(selected)
    mine = np.array([arm_id in chosen for arm_id in rule.ids], dtype=np.bool_)
    by_chance = by_policy = np.zeros(count)
    if baseline_rate > 0:
        by_chance = rule.shares_by_chance(rng, rounds, mine)
    if baseline_rate < 1:
        scores = rule.scores(policy, rng, rounds - 1)
        by_policy = (rule.times_chosen(scores) + mine) / rounds
    mixed = baseline_rate * by_chance + (1 - baseline_rate) * by_policy
    by_id = dict(zip(rule.ids, mixed.tolist(), strict=True))
    return {arm_id: min(by_id[arm_id], 1.0) for arm_id in selected}


_PRIOR: Final = (1.0, 1.0, 0)


def _columns(known: Evidence) -> tuple[float, float, int]:
    return (known.alpha, known.beta, known.pulls) if isinstance(known, ArmState) else known


class _Rule:
    """Who is chosen, given an order of the candidates."""

    def __init__(
        self,
        candidates: Sequence[Arm | str],
        states: Mapping[str, Evidence],
        k: int,
        budget: int,
        min_pulls: int,
    ) -> None:
        self.ids: list[Any] = list(candidates)
        self._costs = [0] * len(self.ids)
        if set(map(type, candidates)) != {str}:
            self.ids = [arm if isinstance(arm, str) else arm.id for arm in candidates]
            self._costs = [0 if isinstance(arm, str) else arm.token_cost for arm in candidates]
        known: list[Any] = [states.get(arm_id, _PRIOR) for arm_id in self.ids]
        self._known = known
        if any(issubclass(kind, ArmState) for kind in set(map(type, known))):
            known = list(map(_columns, known))
        columns: list[Any] = list(zip(*known, strict=True)) or [(), (), ()]
        self._alphas, self._betas, self._pulls = columns
        self._forced: list[int] = []
        if min_pulls > 0:
            self._forced = [i for i, pulls in enumerate(self._pulls) if pulls < min_pulls]
        self._slots = max((k if k > 0 else len(self.ids)) - len(self._forced), 0)
        self._budget = budget

    def scores(
        self, policy: Policy | None, rng: np.random.Generator, rounds: int
    ) -> NDArray[np.float64]:
        """The policy's; ours by default draws without a look at states."""
        if policy is None or type(policy) is ThompsonSampling:
            return drawn(self._alphas, self._betas, rng, rounds)
        states = [one if isinstance(one, ArmState) else ArmState(*one) for one in self._known]
        return policy.scores(states, rng, rounds)

    def choose(self, order: Iterable[int]) -> tuple[list[int], int]:
        """The places of the chosen, and what they cost."""
        chosen, forced = list(self._forced), frozenset(self._forced)
        used = sum(self._costs[i] for i in chosen)
        full = len(chosen) + self._slots
        for i in order:
            if len(chosen) >= full:
                break
            cost = self._costs[i]
            if i not in forced and (self._budget <= 0 or used + cost <= self._budget):
                chosen.append(i)
                used += cost
        return chosen, used

    def times_chosen(self, scores: NDArray[np.float64]) -> NDArray[Any]:
        """In how many of the rounds each candidate is chosen."""
        orders = np.argsort(-scores, axis=1, kind="stable").tolist()
        places = [i for order in orders for i in self.choose(order)[0]]
        return np.bincount(places, minlength=len(self.ids))

    def shares_by_chance(
        self, rng: np.random.Generator, rounds: int, mine: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """In which share of baseline rounds each candidate is chosen."""
        count = len(self.ids)
        if self._budget > 0:
            return (self.times_chosen(rng.random((rounds - 1, count))) + mine) / rounds
        free = count - len(self._forced)
        shares = np.full(count, min(self._slots / free, 1.0) if free else 1.0)
        shares[self._forced] = 1.0
        return shares
