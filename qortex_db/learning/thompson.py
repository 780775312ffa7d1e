"""Thompson sampling over Beta posteriors, with qortex's rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qortex_db.learning.state import Arm, ArmState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Selection:
    """What a bandit chose.

    Attributes:
        selected: Ids, forced ones first, then best sample first.
        excluded: The other ids, in the candidates' order.
        scores: What each candidate's posterior drew; 0.5 for the chosen of a baseline round.
        is_baseline: Whether chance alone chose, to explore.
        used_tokens: What the chosen arms cost together.
    """

    selected: tuple[str, ...]
    excluded: tuple[str, ...]
    scores: Mapping[str, float]
    is_baseline: bool
    used_tokens: int


def select(
    candidates: Sequence[Arm],
    states: Mapping[str, ArmState],
    *,
    k: int = 1,
    token_budget: int = 0,
    baseline_rate: float = 0.1,
    min_pulls: int = 0,
    rng: np.random.Generator | None = None,
) -> Selection:
    """Choose among candidates by one draw from each one's posterior.

    Args:
        candidates: With distinct ids.
        states: Their posteriors; who is missing has the prior.
        k: How many; 0 or less means no cap.
        token_budget: What the chosen may cost together; 0 means no budget. An arm that does not
            fit is passed over for the next that does.
        baseline_rate: The probability, 0 to 1, of a round in which chance alone chooses.
        min_pulls: Arms observed less often are chosen first, whatever they cost.
        rng: The source of chance; pass a seeded one to get the same choice again.

    Source:
        Thompson (1933), "On the likelihood that one unknown probability exceeds another".
    """
    rng = np.random.default_rng() if rng is None else rng
    prior = ArmState()
    known = [states.get(arm.id, prior) for arm in candidates]
    is_baseline = bool(rng.random() < baseline_rate)
    if is_baseline:
        draws = rng.random(len(candidates))
    else:
        draws = rng.beta([state.alpha for state in known], [state.beta for state in known])

    forced = [i for i, state in enumerate(known) if state.pulls < min_pulls]
    cap = len(candidates) if k <= 0 else max(k - len(forced), 0)
    ranked = [int(i) for i in np.argsort(-draws, kind="stable") if known[i].pulls >= min_pulls]

    chosen = list(forced)
    used = sum(candidates[i].token_cost for i in forced)
    for i in ranked:
        if len(chosen) - len(forced) >= cap:
            break
        cost = candidates[i].token_cost
        if token_budget <= 0 or used + cost <= token_budget:
            chosen.append(i)
            used += cost

    taken = set(chosen)
    scored = chosen if is_baseline else range(len(candidates))
    return Selection(
        selected=tuple(candidates[i].id for i in chosen),
        excluded=tuple(arm.id for i, arm in enumerate(candidates) if i not in taken),
        scores={candidates[i].id: 0.5 if is_baseline else float(draws[i]) for i in scored},
        is_baseline=is_baseline,
        used_tokens=used,
    )
