"""Arms in plain Python: what the repository's statements have to come to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qortex_db import ArmState

if TYPE_CHECKING:
    from collections.abc import Iterable

FLOOR = 0.01


@dataclass
class ArmModel:
    """The arms of one learner by context and id."""

    arms: dict[tuple[str, str], ArmState] = field(default_factory=dict)

    def add(
        self, key: tuple[str, str], alpha: float, beta: float, pulls: int, *, floor: float = 0.0
    ) -> None:
        """An observation, which needs no floor, or deltas."""
        old = self.arms.get(key, ArmState())
        self.arms[key] = ArmState(
            max(old.alpha + alpha, floor),
            max(old.beta + beta, floor),
            old.pulls + pulls,
            old.total_reward + alpha,
        )

    def decay(self, keys: Iterable[tuple[str, str]], factor: float) -> None:
        for key in keys:
            old = self.arms[key]
            self.arms[key] = ArmState(
                max(max(old.alpha, FLOOR) * factor, FLOOR),
                max(max(old.beta, FLOOR) * factor, FLOOR),
                old.pulls,
                old.total_reward * factor,
            )

    def seed(self, key: tuple[str, str], boost: float, *, unpulled: bool = False) -> None:
        old = self.arms.get(key)
        if old is None or (unpulled and old.pulls == 0):
            self.arms[key] = ArmState(boost)


def replay(events: Iterable[Any]) -> dict[tuple[str, str], ArmState]:
    """The states that the events' changes add up to; only a first event's state is believed."""
    model = ArmModel()
    for event in events:
        key = (event.context_hash, event.arm_id)
        if event.kind == "select":
            continue
        if event.kind == "delete":
            model.arms.pop(key, None)
        elif event.kind in {"put", "seed", "reset"} or key not in model.arms:
            model.arms[key] = ArmState(event.alpha, event.beta, event.pulls, event.total_reward)
        elif event.kind == "decay":
            model.decay([key], event.multiplied_by)
        else:
            model.add(
                key,
                event.alpha_added,
                event.beta_added,
                event.pulls_added,
                floor=FLOOR if event.kind == "deltas" else 0.0,
            )
    return model.arms
