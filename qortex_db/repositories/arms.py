"""Arms: Beta posteriors by learner, context and arm, counted in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from qortex_db import learning, observability
from qortex_db.errors import InvalidInputError
from qortex_db.learning import Arm, ArmState, Selection
from qortex_db.repositories import arm_statements, validation
from qortex_db.repositories.records import MAX_LIMIT

if TYPE_CHECKING:
    import numpy as np

    from qortex_db.engine import Executor

_SMALLEST: Final = 1e-300  # a posterior's parameters are positive


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


def _learner(value: object) -> str:
    return validation.check_id(value, name="learner")


def _context(context: Mapping[str, Any] | None) -> str:
    if context is not None and not isinstance(context, Mapping):
        raise InvalidInputError("context has to be a mapping or None.")
    return learning.context_hash(context)


class ArmRepository:
    """The arms of all learners."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def get(
        self, learner: str, arm_id: str, *, context: Mapping[str, Any] | None = None
    ) -> ArmState:
        """One arm's state; the prior, and nothing stored, if it was never observed."""
        key = validation.check_id(arm_id, name="arm_id")
        return (await self._states(arm_statements.GET, learner, context, ids=[key])).get(
            key, ArmState()
        )

    async def get_all(
        self, learner: str, *, context: Mapping[str, Any] | None = None
    ) -> dict[str, ArmState]:
        """Every stored arm of one context."""
        return await self._states(arm_statements.GET_ALL, learner, context)

    async def get_all_states(self, learner: str) -> dict[str, dict[str, ArmState]]:
        """Every stored arm of a learner by context hash and arm."""
        fetched = await self._executor.run(
            arm_statements.GET_ALL_STATES, {"learner": _learner(learner)}
        )
        states: dict[str, dict[str, ArmState]] = {}
        for row in fetched.rows:
            states.setdefault(row[0], {})[row[1]] = _state(row[2:])
        return states

    async def put(
        self,
        learner: str,
        arm_id: str,
        state: ArmStateLike,
        *,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        """Overwrite one arm's state; to count an observation use `observe`, which loses none.

        Args:
            state: alpha and beta above 0; "" as `last_updated` means now.

        Raises:
            InvalidInputError: A value was refused; nothing was stored.
        """
        values = {
            "learner_name": _learner(learner),
            "context_hash": _context(context),
            "arm_id": validation.check_id(arm_id, name="arm_id"),
            "alpha": validation.check_number(state.alpha, name="alpha", low=_SMALLEST),
            "beta": validation.check_number(state.beta, name="beta", low=_SMALLEST),
            "pulls": validation.check_count(state.pulls, name="pulls"),
            "total_reward": validation.check_number(state.total_reward, name="total_reward"),
            "last_updated": validation.check_time(state.last_updated, name="last_updated")
            or datetime.now(UTC),
        }
        await self._executor.run(arm_statements.PUT, values)

    async def observe(
        self,
        learner: str,
        arm_id: str,
        *,
        reward: float,
        context: Mapping[str, Any] | None = None,
    ) -> ArmState:
        """Count one reward, atomically: r adds r to alpha and 1 - r to beta.

        Args:
            reward: 0 to 1.

        Returns:
            The new state.
        """
        return (await self.observe_many(learner, [(arm_id, reward)], context=context))[arm_id]

    async def observe_many(
        self,
        learner: str,
        observations: Iterable[tuple[str, float]],
        *,
        context: Mapping[str, Any] | None = None,
    ) -> dict[str, ArmState]:
        """Count rewards, any number an arm, in one statement.

        Returns:
            The new states of the arms observed.

        Raises:
            InvalidInputError: An id or a reward was refused; nothing was counted.
        """
        params: dict[str, Any] = {"learner": _learner(learner), "context": _context(context)}
        sums: dict[str, tuple[int, float]] = {}
        for item in observations:
            if isinstance(item, (str, bytes)) or len(item) != 2:  # noqa: PLR2004 - a pair
                raise InvalidInputError("An observation is a pair (arm_id, reward).")
            key = validation.check_id(item[0], name="arm_id")
            reward = validation.check_number(item[1], name="reward", low=0, high=1)
            count, total = sums.get(key, (0, 0.0))
            sums[key] = (count + 1, total + reward)
        if not sums:
            return {}
        keys = sorted(sums)
        params |= {
            "ids": keys,
            "counts": [sums[key][0] for key in keys],
            "rewards": [sums[key][1] for key in keys],
        }
        fetched = await self._executor.run(arm_statements.OBSERVE, params)
        observability.learning_observations_total.add(
            sum(count for count, _ in sums.values()), {"learner": learner}
        )
        return {row[0]: _state(row[1:]) for row in fetched.rows}

    async def select(
        self,
        learner: str,
        candidates: Sequence[Arm | str],
        *,
        k: int = 1,
        context: Mapping[str, Any] | None = None,
        token_budget: int = 0,
        baseline_rate: float = 0.1,
        min_pulls: int = 0,
        rng: np.random.Generator | None = None,
    ) -> Selection:
        """Choose among candidates by Thompson sampling, with one query for all of them.

        Args:
            candidates: Arms or ids, without repetition.
            k: How many; 0 or less means no cap.
            token_budget: What the chosen may cost together; 0 means no budget.
            baseline_rate: The share of rounds, 0 to 1, in which chance alone chooses.
            min_pulls: Arms observed less often are chosen first.
            rng: A seeded generator gives the same choice again.
        """
        if isinstance(candidates, (str, bytes)):
            raise InvalidInputError("candidates has to be a list of arms or ids, even for one.")
        arms = list(candidates)
        ids = [arm.id if isinstance(arm, Arm) else arm for arm in arms]
        validation.check_each_id(ids, name="candidates")
        if len(set(ids)) != len(ids):
            raise InvalidInputError("candidates has an id twice.")
        if isinstance(k, bool) or not isinstance(k, int):
            raise InvalidInputError("k has to be a whole number.")
        for arm in arms:
            if isinstance(arm, Arm):
                validation.check_count(arm.token_cost, name="token_cost")
        params = {"learner": _learner(learner), "context": _context(context), "ids": ids}
        rows = (await self._executor.run(arm_statements.POSTERIORS, params)).rows if ids else ()
        states = {arm_id: ArmState(alpha, beta, pulls) for arm_id, alpha, beta, pulls in rows}
        selection = learning.select(
            arms,
            states,
            k=k,
            token_budget=validation.check_count(token_budget, name="token_budget"),
            baseline_rate=validation.check_number(
                baseline_rate, name="baseline_rate", low=0, high=1
            ),
            min_pulls=validation.check_count(min_pulls, name="min_pulls"),
            rng=rng,
        )
        observability.learning_selections_total.add(
            1, {"learner": learner, "baseline": selection.is_baseline}
        )
        return selection

    async def top(
        self, learner: str, *, k: int = 10, context: Mapping[str, Any] | None = None
    ) -> list[tuple[str, ArmState]]:
        """The arms of the highest posterior mean, highest first; ties by id."""
        count = validation.check_limit(k, MAX_LIMIT, name="k")
        return list((await self._states(arm_statements.TOP, learner, context, k=count)).items())

    async def contexts(self, learner: str) -> list[str]:
        """The hashes of the contexts in which a learner has arms."""
        fetched = await self._executor.run(arm_statements.CONTEXTS, {"learner": _learner(learner)})
        return [row[0] for row in fetched.rows]

    async def delete(
        self,
        learner: str,
        arm_ids: Iterable[str] | None = None,
        *,
        context: Mapping[str, Any] | AllContexts | None = None,
    ) -> int:
        """Forget arms: these, or all; of the default context, another, or `ALL_CONTEXTS`.

        Returns:
            How many states were there.
        """
        params: dict[str, Any] = {"learner": _learner(learner)}
        if not isinstance(context, AllContexts):
            params["context"] = _context(context)
        if arm_ids is not None:
            params["ids"] = validation.check_ids(arm_ids, name="arm_ids")
            if not params["ids"]:
                return 0
        statement = arm_statements.DELETE["context" in params, "ids" in params]
        return (await self._executor.run(statement, params)).rowcount

    async def _states(
        self, statement: Any, learner: str, context: Mapping[str, Any] | None, **params: Any
    ) -> dict[str, ArmState]:
        params |= {"learner": _learner(learner), "context": _context(context)}
        return {
            row[0]: _state(row[1:]) for row in (await self._executor.run(statement, params)).rows
        }


def _state(row: Any) -> ArmState:
    alpha, beta, pulls, total_reward, last_updated = row
    return ArmState(
        alpha, beta, pulls, total_reward, last_updated.isoformat() if last_updated else ""
    )
