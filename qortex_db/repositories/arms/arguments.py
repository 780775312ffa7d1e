"""What the methods of arms take, checked before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from qortex_db import checks, learning, messages
from qortex_db.errors import InvalidContextError, InvalidInputError
from qortex_db.learning import Arm
from qortex_db.limits import DEFAULT_LIMITS, Limits
from qortex_db.repositories import validation
from qortex_db.values.jsonable import to_canonical_json, to_json
from qortex_db.values.plain_json import is_larger

SMALLEST: Final = 1e-300
"""A posterior's parameters are positive."""


class AllContexts:
    """The type of `ALL_CONTEXTS`."""

    def __repr__(self) -> str:
        return "ALL_CONTEXTS"


ALL_CONTEXTS: Final = AllContexts()
"""Every context of a learner, where None and {} mean the default one."""


class ArmStateLike(Protocol):
    """Any object with the attributes of `ArmState`, such as qortex's own."""

    @property
    def alpha(self) -> float: ...
    @property
    def beta(self) -> float: ...
    @property
    def pulls(self) -> int: ...
    @property
    def total_reward(self) -> float: ...
    @property
    def last_updated(self) -> str: ...


def check_learner(value: object) -> str:
    return validation.check_id(value, name="learner")


class QortexContext(dict[str, Any]):
    """A context as qortex keys it, by the bytes of `context_hash`: stored keys depend on them.

    Python's `json` says more than JSON: a number as key is its text, and NaN a word.
    """


def qortex_context(context: Mapping[str, Any] | None) -> QortexContext | None:
    """What qortex's stores are given, as the repositories are to take it.

    Raises:
        InvalidContextError: It is no mapping.
    """
    return None if context is None else QortexContext(_mapping(context))


def hash_of(context: Mapping[str, Any] | None, limits: Limits = DEFAULT_LIMITS) -> str:
    """The key of a context.

    Raises:
        InvalidContextError: JSON can't say it.
        LimitExceededError: It is too large.
    """
    if context is None or not _mapping(context):
        return learning.context_hash(None)
    if isinstance(context, dict) and is_larger(dict(context), limits.max_context_bytes):
        limits.check("max_context_bytes", limits.max_context_bytes + 1, "context")
    if isinstance(context, QortexContext):
        return learning.context_hash(context)
    said = _canonical(context)
    limits.check("max_context_bytes", len(said), "context")  # it is ASCII
    return learning.hash_of_json(said)


def _mapping(context: object) -> Mapping[str, Any]:
    if not isinstance(context, Mapping):
        raise InvalidContextError(f"context is a {type(context).__name__}; pass a mapping or None.")
    return context


def _canonical(context: Mapping[str, Any]) -> str:
    try:
        return to_canonical_json(context, name="context")
    except InvalidInputError as error:
        raise InvalidContextError(str(error)) from None


@dataclass(frozen=True, slots=True)
class WhichArms:
    """Which arms of a learner a statement is about.

    Attributes:
        params: The parameters that say so.
        in_context: Whether they are those of one context.
        listed: Whether they are those of a list.
    """

    params: Mapping[str, Any]
    in_context: bool
    listed: bool

    @property
    def named(self) -> dict[str, bool]:
        """What the statement's builder is told."""
        return {"in_context": self.in_context, "listed": self.listed}


def which_arms(
    learner: str,
    ids: list[str] | None,
    context: Mapping[str, Any] | AllContexts | None,
    limits: Limits,
) -> WhichArms:
    """A learner's arms, by their context and ids as far as given."""
    params: dict[str, Any] = {"learner": check_learner(learner)}
    if not isinstance(context, AllContexts):
        params["context"] = hash_of(context, limits)
    if ids is not None:
        params["ids"] = ids
    return WhichArms(params, "context" in params, ids is not None)


def readable(context: Mapping[str, Any] | None) -> str | None:
    """The context as JSON for people; None where it is empty, or where jsonb can't hold it."""
    if not context:
        return None
    of_qortex = isinstance(context, QortexContext)
    said = json.loads(learning.canonical_json(context)) if of_qortex else context
    try:
        return to_json(said, name="context")
    except InvalidInputError:
        return None


def check_evidence(value: object, *, name: str) -> float:
    """A posterior's alpha or beta: positive, and such that sums over arms stay finite."""
    return checks.check_number(value, name=name, low=SMALLEST, high=validation.MAX_MEASURE)


def check_state(state: ArmStateLike, arm_id: str) -> dict[str, Any]:
    try:
        alpha, beta, pulls = state.alpha, state.beta, state.pulls
        reward, time = state.total_reward, state.last_updated
    except AttributeError:
        raise InvalidInputError(
            f"state is a {type(state).__name__} without the attributes of an ArmState."
        ) from None
    of = f"of arm {messages.shown(arm_id)}"
    updated = validation.check_time(time, name=f"last_updated {of}")
    return {
        "new_alpha": check_evidence(alpha, name=f"alpha {of}"),
        "new_beta": check_evidence(beta, name=f"beta {of}"),
        "new_pulls": checks.check_count(pulls, name=f"pulls {of}"),
        "new_total_reward": validation.check_measure(reward, name=f"total_reward {of}"),
        "new_last_updated": updated or datetime.now(UTC),
    }


class Rewards(NamedTuple):
    """The rewards of an arm: how many, and their sum."""

    pulls: int = 0
    reward: float = 0.0


_NO_REWARDS: Final = Rewards()


def sum_rewards(
    observations: Iterable[tuple[str, float]], limits: Limits = DEFAULT_LIMITS
) -> dict[str, Rewards]:
    """The rewards of each arm."""
    sums: dict[str, Rewards] = {}
    for item in validation.check_list(observations, name="observations", limits=limits):
        pair = validation.check_tuple(
            item, 2, name="An observation", of="is a pair (arm_id, reward)"
        )
        key = validation.check_id(pair[0], name="arm_id")
        reward = checks.check_number(pair[1], name="reward", low=0, high=1)
        before = sums.get(key, _NO_REWARDS)
        sums[key] = Rewards(before.pulls + 1, before.reward + reward)
    return sums


def check_deltas(deltas: object, limits: Limits) -> dict[str, list[float]]:
    pairs = {}
    of = "mapping of arms to pairs"
    for key, pair in validation.check_dict(deltas, name="deltas", of=of, limits=limits).items():
        validation.check_tuple(pair, 2, name="A delta", of="is a pair (alpha_delta, beta_delta)")
        pairs[validation.check_id(key, name="arm_id")] = [
            validation.check_measure(pair[0], name="alpha_delta"),
            validation.check_measure(pair[1], name="beta_delta"),
        ]
    return pairs


def check_candidates(
    candidates: Iterable[Arm | str], limits: Limits
) -> tuple[list[Arm | str], list[str]]:
    """The candidates, and their ids."""
    of = "list of arms or ids"
    arms = validation.check_list(candidates, name="candidates", of=of, limits=limits)
    ids = arms
    if set(map(type, arms)) != {str}:
        ids = [arm.id if isinstance(arm, Arm) else arm for arm in arms]
    validation.check_each_id(ids, name="candidates")
    if len(set(ids)) != len(ids):
        raise InvalidInputError("candidates has an id twice.")
    if ids is not arms:
        arms = [_with_whole_cost(arm) if isinstance(arm, Arm) else arm for arm in arms]
    return arms, ids


def _with_whole_cost(arm: Arm) -> Arm:
    cost = checks.check_count(arm.token_cost, name="token_cost")
    return arm if cost is arm.token_cost else replace(arm, token_cost=cost)


def check_chance(policy: object, rng: object) -> None:
    """What scores the candidates, and the source of chance; None leaves them to us."""
    if policy is not None and not callable(getattr(policy, "scores", None)):
        raise InvalidInputError(f"policy is a {type(policy).__name__} without scores().")
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise InvalidInputError(
            f"rng is a {type(rng).__name__}; pass what numpy.random.default_rng() gives."
        )


def check_rules(k: int, token_budget: int, baseline_rate: float, min_pulls: int) -> dict[str, Any]:
    """The options of a selection."""
    if (most := checks.as_whole(k)) is None:
        raise InvalidInputError(f"k is a {type(k).__name__}; pass a whole number.")
    return {
        "k": most,
        "token_budget": checks.check_count(token_budget, name="token_budget"),
        "baseline_rate": checks.check_number(baseline_rate, name="baseline_rate", low=0, high=1),
        "min_pulls": checks.check_count(min_pulls, name="min_pulls"),
    }
