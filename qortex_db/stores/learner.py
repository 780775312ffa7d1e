"""qortex's learner, with every change of an arm one statement."""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from qortex_db import checks
from qortex_db.errors import InvalidInputError
from qortex_db.learning import Policy, RewardModel, TernaryReward, ThompsonSampling
from qortex_db.observability import traced
from qortex_db.repositories import validation
from qortex_db.repositories.arms.arguments import hash_of, qortex_context, sum_rewards
from qortex_db.stores import events
from qortex_db.stores.learner_types import SelectionResult, as_arms, as_pairs, read_outcome
from qortex_db.stores.learning import PostgresLearningStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Self

    import numpy as np

    from qortex_db.database import Database
    from qortex_db.learning import ArmState
    from qortex_db.repositories import ArmRepository
    from qortex_db.repositories.arms.arguments import QortexContext
    from qortex_db.stores.learner_types import ArmLike, LearnerConfigLike, OutcomeLike

_MOST_SESSIONS: Final = 10_000
_PRIOR: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Session:
    session_id: str
    learner: str
    started_at: str


class Learner:
    """A bandit with qortex's methods, that any number of tasks and processes may share.

    Where qortex's own reads a state, alters it and writes it back, each change here is one
    statement, and none is lost. What else differs: rewards are 0 to 1; a seed arm is boosted once,
    when it is first stored, and not again after it decayed; a batch is kept whole or not at all.

    Args:
        config: A `LearnerConfig`, or qortex's.
        strategy: A policy, by default `ThompsonSampling`.
        reward_model: What an outcome without a reward is worth, by default `TernaryReward`.
        store: A `PostgresLearningStore`, a `Database`, or a DSN; None reads the environment.
        rng: A seeded generator makes the same choices again.

    Raises:
        InvalidInputError: The configuration or the store was refused.
    """

    def __init__(
        self,
        config: LearnerConfigLike,
        strategy: Policy | None = None,
        reward_model: RewardModel | None = None,
        store: PostgresLearningStore | Database | str | None = None,
        *,
        rng: np.random.Generator | None = None,
    ) -> None:
        if not hasattr(config, "name"):
            raise InvalidInputError(f"config is a {type(config).__name__}; pass a LearnerConfig.")
        if strategy is not None and not callable(getattr(strategy, "scores", None)):
            raise InvalidInputError(
                f"strategy is a {type(strategy).__name__} without scores(); pass a policy of "
                "qortex_db. Rewards are counted by the server, so that an update() has no use."
            )
        if reward_model is not None and not isinstance(reward_model, RewardModel):
            raise InvalidInputError(
                f"reward_model is a {type(reward_model).__name__} without compute(outcome)."
            )
        self.config = config
        self.strategy = strategy or ThompsonSampling()
        self.reward_model = reward_model or TernaryReward()
        self.store = (
            store
            if isinstance(store, PostgresLearningStore)
            else PostgresLearningStore(config.name, "" if store is None else store)
        )
        self._rng = rng
        self._sessions: dict[str, _Session] = {}

    @classmethod
    async def create(
        cls,
        config: LearnerConfigLike,
        strategy: Policy | None = None,
        reward_model: RewardModel | None = None,
        store: PostgresLearningStore | Database | str | None = None,
        *,
        rng: np.random.Generator | None = None,
    ) -> Self:
        """A learner whose seed arms are seeded: those of the default context not stored yet.

        Raises:
            InvalidInputError: The configuration or the store was refused.
        """
        learner = cls(config, strategy, reward_model, store, rng=rng)
        if config.seed_arms:
            try:
                arms = await learner._arms()
                await arms.seed(learner._name, config.seed_arms, boost=config.seed_boost)
            except BaseException:
                await learner.close()  # the caller has nothing to close
                raise
        return learner

    @traced("learning.select")
    async def select(
        self,
        candidates: Iterable[ArmLike],
        context: Mapping[str, Any] | None = None,
        k: int = 1,
        token_budget: int = 0,
    ) -> SelectionResult:
        """Choose among arms, with one query for all of them.

        Args:
            candidates: Arms of distinct ids.
            k: How many; 0 or less means no cap.
            token_budget: What the chosen may cost together; 0 means no budget.

        Raises:
            InvalidInputError: A candidate or a number was refused.
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: There are more arms, or a larger context, than a limit allows.
        """
        given, arms = as_arms(candidates)
        chosen = await (await self._arms()).select(
            self._name,
            arms,
            k=k,
            context=qortex_context(context),
            token_budget=token_budget,
            baseline_rate=self.config.baseline_rate,
            min_pulls=self.config.min_pulls,
            policy=self.strategy,
            rng=self._rng,
        )
        events.tell(
            "LearningSelectionMade",
            learner=self._name,
            selected_count=len(chosen.selected),
            excluded_count=len(chosen.excluded),
            is_baseline=chosen.is_baseline,
            token_budget=int(token_budget),
            used_tokens=chosen.used_tokens,
        )
        by_id = {arm.id: theirs for arm, theirs in zip(arms, given, strict=True)}
        return SelectionResult(
            selected=[by_id[arm_id] for arm_id in chosen.selected],
            excluded=[by_id[arm_id] for arm_id in chosen.excluded],
            is_baseline=chosen.is_baseline,
            scores=dict(chosen.scores),
            token_budget=int(token_budget),
            used_tokens=chosen.used_tokens,
        )

    @traced("learning.observe")
    async def observe(
        self, outcome: OutcomeLike, context: Mapping[str, Any] | None = None
    ) -> ArmState:
        """Count an outcome, atomically.

        Args:
            context: By default the outcome's own.

        Returns:
            The new state.

        Raises:
            InvalidInputError: The outcome was refused; nothing was counted.
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: The context is larger than a limit allows.
        """
        arm_id, reward, context = read_outcome(outcome, self.reward_model, context)
        counted_in = qortex_context(context)
        arms = await self._arms()
        state = await arms.observe(self._name, arm_id, reward=reward, context=counted_in)
        self._tell_of(outcome, reward, hash_of(counted_in), state)
        return state

    @traced("learning.batch_observe")
    async def batch_observe(
        self, outcomes: Iterable[OutcomeLike], context: Mapping[str, Any] | None = None
    ) -> dict[str, ArmState]:
        """Count outcomes, all of them or none: one statement for each context.

        Returns:
            The new states by arm; of an arm in several contexts that of its last outcome.

        Raises:
            InvalidInputError: An outcome was refused; nothing was counted.
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: There are more outcomes, or a larger context, than a limit allows.
        """
        batches: dict[str, tuple[QortexContext | None, list[tuple[str, float]]]] = {}
        counted: list[tuple[OutcomeLike, float, str]] = []
        last: dict[str, str] = {}
        for outcome in validation.check_list(outcomes, name="outcomes"):
            arm_id, reward, where = read_outcome(outcome, self.reward_model, context)
            counted_in = qortex_context(where)
            key = hash_of(counted_in)
            batches.setdefault(key, (counted_in, []))[1].append((arm_id, reward))
            last[validation.check_id(arm_id, name="arm_id")] = key
            counted.append((outcome, reward, key))
        database = await self.store.handle.open()
        if len(batches) <= 1:  # a statement by itself is a transaction
            states = await self._count(database.arms, batches)
        else:
            for _, rewards in batches.values():
                sum_rewards(rewards)  # refuses what it refuses before anything is sent
            async with database.unit_of_work() as uow:
                states = await self._count(uow.arms, batches)
        for outcome, reward, key in counted:
            self._tell_of(outcome, reward, key, states[key][outcome.arm_id])
        return {arm_id: states[key][arm_id] for arm_id, key in last.items()}

    async def _count(
        self,
        arms: ArmRepository,
        batches: Mapping[str, tuple[QortexContext | None, Sequence[tuple[str, float]]]],
    ) -> dict[str, dict[str, ArmState]]:
        """In key order, so that batches don't deadlock."""
        return {
            key: await arms.observe_many(self._name, rewards, context=context)
            for key, (context, rewards) in sorted(batches.items(), key=lambda item: item[0])
        }

    @traced("learning.apply_credit_deltas")
    async def apply_credit_deltas(
        self,
        deltas: Mapping[str, Mapping[str, float]],
        context: Mapping[str, Any] | None = None,
    ) -> dict[str, ArmState]:
        """Add what a credit assignment found to posteriors, in one statement.

        Args:
            deltas: By arm `{"alpha_delta": …, "beta_delta": …}`; what is absent is 0. Neither alpha
                nor beta falls below 0.01.

        Returns:
            The new states of these arms.

        Raises:
            InvalidInputError: An arm or a delta was refused; nothing was added.
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: There are more arms, or a larger context, than a limit allows.
        """
        arms = await self._arms()
        states = await arms.apply_deltas(
            self._name, as_pairs(deltas), context=qortex_context(context)
        )
        for arm_id in deltas:
            self._tell_state(arm_id, states[arm_id])
        return {arm_id: states[arm_id] for arm_id in deltas}

    @traced("learning.decay_arm")
    async def decay_arm(
        self,
        arm_id: str,
        decay_factor: float = 0.9,
        context: Mapping[str, Any] | None = None,
    ) -> ArmState:
        """Let an arm's evidence fade, atomically; one that is not stored begins at the prior.

        Args:
            decay_factor: 0 to 1; times alpha and beta, at least 0.01 each, and total_reward.

        Returns:
            The new state.

        Raises:
            InvalidInputError: The id or the factor was refused; every arm is decayed by
                `arms.decay(learner)` alone.
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: The context is larger than a limit allows.
        """
        arms = await self._arms()
        where = qortex_context(context)
        arm_id = validation.check_id(arm_id, name="arm_id")
        while not (
            states := await arms.decay(self._name, arm_id, factor=decay_factor, context=where)
        ):
            await arms.seed(self._name, [arm_id], boost=_PRIOR, context=where)
        return states[arm_id]

    async def reset(
        self, arm_ids: Sequence[str] | None = None, context: Mapping[str, Any] | None = None
    ) -> int:
        """Forget arms, by the rule of the store's `delete`; return how many states were there.

        Raises:
            InvalidInputError: An id was refused; nothing was forgotten.
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: There are more arms, or a larger context, than a limit allows.
        """
        return await self.store.delete(arm_ids, context)

    async def top_arms(
        self, context: Mapping[str, Any] | None = None, k: int = 10
    ) -> list[tuple[str, ArmState]]:
        """The arms of the highest posterior mean, highest first; ties by id.

        Raises:
            InvalidInputError: `k` was refused.
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: The context is larger than a limit allows.
        """
        return await (await self._arms()).top(self._name, k=k, context=qortex_context(context))

    async def posteriors(
        self, context: Mapping[str, Any] | None = None, arm_ids: Iterable[str] | None = None
    ) -> dict[str, dict[str, Any]]:
        """The stored arms, or these of them: the attributes of each state and its `mean`.

        Raises:
            InvalidInputError: An id was refused.
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: There are more arms, or a larger context, than a limit allows.
        """
        arms = await self._arms()
        states = await arms.get_all(self._name, arm_ids, context=qortex_context(context))
        return {arm_id: state.to_dict() | {"mean": state.mean} for arm_id, state in states.items()}

    async def metrics(self, window: int | None = None) -> dict[str, Any]:
        """Counts and sums over all contexts; qortex has no use for the window either."""
        del window
        found = await (await self._arms()).metrics(self._name)
        return {
            "learner": self.config.name,
            "total_pulls": found.total_pulls,
            "total_reward": found.total_reward,
            "accuracy": round(found.accuracy, 4),
            "arm_count": found.arm_count,
            "explore_ratio": self.config.baseline_rate,
        }

    def session_start(self, session_name: str) -> str:
        """Begin a session, which this process alone knows; return its id.

        Args:
            session_name: Not kept, as in qortex.
        """
        del session_name
        if len(self._sessions) >= _MOST_SESSIONS:  # those that nobody ended
            del self._sessions[next(iter(self._sessions))]
        session = _Session(str(uuid.uuid4()), self.config.name, _now())
        self._sessions[session.session_id] = session
        return session.session_id

    def session_end(self, session_id: str) -> dict[str, Any]:
        """End a session, and say when it was; `{"error": …}` for an unknown one.

        Its arms and outcomes are empty: selections belong to no session, as in qortex.

        Raises:
            InvalidInputError: The id is no text.
        """
        checks.check_text(session_id, name="session_id")
        session = self._sessions.pop(session_id, None)
        if session is None:
            return {"error": f"Session {session_id} not found"}
        return asdict(session) | {"selected_arms": [], "outcomes": {}, "ended_at": _now()}

    async def close(self) -> None:
        """Close a database of its own; a shared one stays open."""
        await self.store.close()

    @property
    def _name(self) -> str:
        return self.store.learner_name

    async def _arms(self) -> ArmRepository:
        return (await self.store.handle.open()).arms

    def _tell_of(self, outcome: OutcomeLike, reward: float, where: str, state: ArmState) -> None:
        events.tell(
            "LearningObservationRecorded",
            learner=self._name,
            arm_id=outcome.arm_id,
            reward=reward,
            outcome=outcome.outcome,
            context_hash=where,
        )
        self._tell_state(outcome.arm_id, state)

    def _tell_state(self, arm_id: str, state: ArmState) -> None:
        events.tell(
            "LearningPosteriorUpdated",
            learner=self._name,
            arm_id=arm_id,
            alpha=state.alpha,
            beta=state.beta,
            pulls=state.pulls,
            mean=state.mean,
        )


def _now() -> str:
    return datetime.now(UTC).isoformat()
