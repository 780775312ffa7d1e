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
    candidates: Sequence[Arm | str],
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
        candidates: Arms or ids, all distinct.
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
    ids = [arm if isinstance(arm, str) else arm.id for arm in candidates]
    known = [states.get(arm_id, prior) for arm_id in ids]
    is_baseline = bool(rng.random() < baseline_rate)
    if is_baseline:
        draws = rng.random(len(ids))
    else:
        draws = rng.beta([state.alpha for state in known], [state.beta for state in known])

    chosen = [i for i, state in enumerate(known) if state.pulls < min_pulls] if min_pulls else []
    forced = frozenset(chosen)
    cap = len(ids) if k <= 0 else max(k, len(forced))
    used = sum(_cost(candidates[i]) for i in chosen)
    for i in np.argsort(-draws, kind="stable").tolist():
        if len(chosen) >= cap:
            break
        cost = _cost(candidates[i])
        if i not in forced and (token_budget <= 0 or used + cost <= token_budget):
            chosen.append(i)
            used += cost

    taken = set(chosen)
    return Selection(
        selected=tuple([ids[i] for i in chosen]),
        excluded=tuple([arm_id for i, arm_id in enumerate(ids) if i not in taken]),
        scores=dict.fromkeys([ids[i] for i in chosen], 0.5)
        if is_baseline
        else dict(zip(ids, draws.tolist(), strict=True)),
        is_baseline=is_baseline,
        used_tokens=used,
    )


def _cost(candidate: Arm | str) -> int:
    return 0 if isinstance(candidate, str) else candidate.token_cost
