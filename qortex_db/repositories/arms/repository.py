"""Arms: Beta posteriors by learner, context and arm, counted in SQL."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, overload

from qortex_db import checks, learning, messages
from qortex_db.engine import on_primary
from qortex_db.errors import InvalidInputError, ReadOnlyError, counter_is_full
from qortex_db.learning import Arm, ArmState, Policy, Selection
from qortex_db.observability import metrics, observed
from qortex_db.repositories import validation
from qortex_db.repositories.arms import change_statements, history_statements, read_statements
from qortex_db.repositories.arms.arguments import (
    ALL_CONTEXTS,
    AllContexts,
    ArmStateLike,
    check_candidates,
    check_chance,
    check_deltas,
    check_evidence,
    check_learner,
    check_rules,
    check_state,
    hash_of,
    readable,
    sum_rewards,
    which_arms,
)
from qortex_db.repositories.arms.reads import ArmReads, LearnerMetrics, by_arm, by_context
from qortex_db.repositories.chunks import Chunks, Work
from qortex_db.repositories.idempotency import check_claim, take, was_done

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import timedelta

    import numpy as np

    from qortex_db.repositories.idempotency import Claim
    from qortex_db.repositories.progress import IngestProgress

_LEAST: Final = 1e-30  # a smaller factor leaves nothing, and would underflow


@observed(
    "arms",
    writes=("apply_deltas", "decay", "delete", "observe", "observe_many", "put", "reset", "seed"),
)
class ArmRepository(ArmReads):
    """The arms of all learners.

    A change of any number of arms is one statement, and none is lost. Where the history is on, the
    same statement writes the events.
    """

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
            state: alpha and beta above 0, up to 1e100; "" as `last_updated` means now.

        Raises:
            InvalidInputError: A value was refused; nothing was stored.
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: The context is larger than a limit allows.
        """
        key = validation.check_id(arm_id, name="arm_id")
        values = {"ids": [key], **check_state(state, key)}
        await self._change(change_statements.put(history=self._history), learner, context, values)

    async def observe(
        self,
        learner: str,
        arm_id: str,
        *,
        reward: float,
        context: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> ArmState:
        """Count one reward, atomically: r adds r to alpha and 1 - r to beta.

        Args:
            reward: 0 to 1.
            idempotency_key: Text that is this observation's own: however often the call is repeated
                with it, it counts once.

        Returns:
            The new state; of a repeated call the state as it is.

        Raises:
            InvalidInputError: An id or the reward was refused; nothing was counted.
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: The context is larger than a limit allows.
            CounterOverflowError: The arm has no room for another pull; nothing was counted.
            IdempotencyKeyReusedError: The key was used for another call; nothing was counted.
        """
        states = await self.observe_many(
            learner, [(arm_id, reward)], context=context, idempotency_key=idempotency_key
        )
        return states.get(arm_id) or ArmState()  # deleted since

    async def observe_many(
        self,
        learner: str,
        observations: Iterable[tuple[str, float]],
        *,
        context: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, ArmState]:
        """Count rewards, any number an arm, in one statement.

        Args:
            idempotency_key: As of `observe`, for all of them.

        Returns:
            The new states of the arms observed; of a repeated call the states as they are.

        Raises:
            InvalidInputError: An id or a reward was refused; nothing was counted.
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: There are more arms, or a larger context, than a limit allows.
            IdempotencyKeyReusedError: The key was used for another call; nothing was counted.
            CounterOverflowError: An arm has no room for so many pulls; nothing was counted.
        """
        sums = sum_rewards(observations, self._limits)
        keys = sorted(sums)
        params = {
            "ids": keys,
            "n": [sums[key].pulls for key in keys],
            "r": [sums[key].reward for key in keys],
        }
        added = {key: sums[key].pulls for key in keys}
        claim = None
        if idempotency_key is not None:
            call = [
                "arms.observe",
                check_learner(learner),
                hash_of(context, self._limits),
                *sorted(sums.items()),
            ]
            claim = check_claim(idempotency_key, call)
        states, counted = await self._count(
            change_statements.observe, learner, context, params, added=added, claim=claim
        )
        if counted:
            observed = sum(rewards.pulls for rewards in sums.values())
            metrics.learning_observations_total.add(observed, metrics.label("learner", learner))
        return states

    async def apply_deltas(
        self,
        learner: str,
        deltas: Mapping[str, tuple[float, float]],
        *,
        context: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, ArmState]:
        """Add to posteriors what a credit assignment found, in one statement.

        Each arm counts one pull more; its alpha's delta is its reward, and may be negative. Neither
        alpha nor beta falls below 0.01.

        Args:
            deltas: By arm, what to add to alpha and to beta; each up to 1e100.
            idempotency_key: As of `observe`.

        Returns:
            The new states of these arms, in key order; of a repeated call the states as they are.

        Raises:
            InvalidInputError: An id or a number was refused; nothing was changed.
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: There are more arms, or a larger context, than a limit allows.
            IdempotencyKeyReusedError: The key was used for another call; nothing was counted.
            CounterOverflowError: An arm has no room for another pull; nothing was changed.
        """
        pairs = check_deltas(deltas, self._limits)
        params = {"ids": sorted(pairs), "deltas": json.dumps(pairs)}
        added = dict.fromkeys(params["ids"], 1)
        claim = None
        if idempotency_key is not None:
            of = check_learner(learner), hash_of(context, self._limits)
            claim = check_claim(idempotency_key, ["arms.apply_deltas", *of, *sorted(pairs.items())])
        statement = change_statements.apply_deltas
        return (await self._count(statement, learner, context, params, added=added, claim=claim))[0]

    async def _apply_one_by_one(
        self, where: Mapping[str, Any], deltas: Mapping[str, Sequence[float]], claim: Claim | None
    ) -> Sequence[Any]:
        """Add deltas, all or none, where Citus takes no statement for several arms; its rows."""
        rows: list[Any] = []
        with suppress(_NoRoomError):
            async with self._executor.together() as lane:
                if claim is not None and not (await lane.run(take(), claim.params)).rows:
                    raise _NoRoomError
                if self._history:
                    await lane.run(history_statements.keep(), where)
                statement = change_statements.apply_delta(history=self._history)
                for arm_id, (alpha, beta) in deltas.items():
                    params = {"of_arm": arm_id, "alpha_delta": alpha, "beta_delta": beta}
                    done = (await lane.run(statement, {**where, **params})).rows
                    if not done:
                        raise _NoRoomError
                    rows += done
            return rows
        return ()

    @overload
    async def decay(
        self,
        learner: str,
        arm_id: str | None = None,
        *,
        factor: float = 0.9,
        half_life: float | timedelta | None = None,
        context: Mapping[str, Any] | None = None,
        batch_size: None = None,
        resume: None = None,
        on_progress: None = None,
    ) -> dict[str, ArmState]: ...
    @overload
    async def decay(
        self,
        learner: str,
        arm_id: str | None = None,
        *,
        factor: float = 0.9,
        half_life: float | timedelta | None = None,
        context: AllContexts,
        batch_size: None = None,
        resume: None = None,
        on_progress: None = None,
    ) -> dict[str, dict[str, ArmState]]: ...
    @overload
    async def decay(
        self,
        learner: str,
        arm_id: None = None,
        *,
        factor: float = 0.9,
        half_life: float | timedelta | None = None,
        context: Mapping[str, Any] | AllContexts | None = None,
        batch_size: int,
        resume: str,
        on_progress: Callable[[IngestProgress], object] | None = None,
    ) -> int: ...
    async def decay(
        self,
        learner: str,
        arm_id: str | None = None,
        *,
        factor: float = 0.9,
        half_life: float | timedelta | None = None,
        context: Mapping[str, Any] | AllContexts | None = None,
        batch_size: int | None = None,
        resume: str | None = None,
        on_progress: Callable[[IngestProgress], object] | None = None,
    ) -> dict[str, ArmState] | dict[str, dict[str, ArmState]] | int:
        """Let evidence fade: multiply alpha, beta and total_reward; the mean stays.

        Neither alpha nor beta falls below 0.01, and pulls stay. Arms that are not stored stay so.

        With `batch_size` each batch is a statement and a transaction of its own, which is refused
        in a unit of work: others wait for the arms of one batch at most. Each arm fades once,
        whatever stops the work: it needs `resume` for that.

        Args:
            arm_id: Only this one; by default all of them.
            factor: 0 to 1.
            half_life: In its place: seconds after which half is left. What counts is the time
                since the arm last changed, by the server's clock.
            context: Of the default context, another, or `ALL_CONTEXTS`.
            batch_size: Arms of a batch, 1 to 100,000; None for one statement. Not with `arm_id`.
            resume: Text that is this decay's own, as the night it is of. Each batch then says in
                its own transaction how far it is, in `qortex_db_checkpoints`: the same call, with
                this again, goes on behind the last one; once it is done, it changes nothing.
            on_progress: Called, and awaited if need be, after each batch, with the arms so far.

        Returns:
            The new states in key order; for `ALL_CONTEXTS` by context hash and arm. In batches how
            many arms faded, by earlier calls of the same work too.

        Raises:
            InvalidInputError: An argument was refused, or batches are asked for in a unit of work.
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: The context is larger than a limit allows.
            ConflictError: `resume` was begun with other arguments, or another process goes on with
                it at the same time.
        """
        by = checks.check_number(factor, name="factor", low=0, high=1)
        ids = None if arm_id is None else [validation.check_id(arm_id, name="arm_id")]
        which = which_arms(learner, ids, context, self._limits)
        seconds = (
            None if half_life is None else validation.check_seconds(half_life, name="half_life")
        )
        params = {**which.params, "by": by if by > _LEAST else 0.0, "half_life": seconds}
        timed = seconds is not None
        chunks = Chunks.of(self._executor, batch_size, on_progress, resume)
        if chunks is not None:
            if resume is None or ids is not None:
                raise InvalidInputError(
                    "A decay in batches is of all arms, and needs resume, so that none fades twice."
                )
            of = params.get("context", "all contexts")
            return await chunks.run(
                self._executor,
                Work(
                    f"decay {params['learner']} of {of}",
                    [by, seconds],
                    change_statements.place().check_cursor,
                ),
                lambda step: change_statements.decay_chunk(
                    step, in_context=which.in_context, timed=timed, history=self._history
                ),
                lambda statement, given: self._executor.run(statement, {**params, **given}),
            )
        statement = change_statements.decay(**which.named, timed=timed, history=self._history)
        states = by_context((await self._executor.run(statement, params)).rows)
        if isinstance(context, AllContexts):
            return states
        return states.get(params["context"], {})

    async def seed(
        self,
        learner: str,
        arm_ids: Iterable[str],
        *,
        boost: float = 2.0,
        unpulled: bool = False,
        context: Mapping[str, Any] | None = None,
    ) -> dict[str, ArmState]:
        """Give arms a better start: those that are not there begin with this alpha.

        An arm that is there stays as it is, so that a second seeding changes nothing, at whatever
        time and from however many processes.

        Args:
            boost: Their alpha, above 0, up to 1e100; beta is 1.
            unpulled: As qortex does, also arms that are there and have no pulls, which boosts one
                anew that has decayed or was reset.

        Returns:
            The states of all of these arms, in key order.

        Raises:
            InvalidInputError: The boost is out of its range.
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: There are more arms, or a larger context, than a limit allows.
        """
        ids = validation.check_ids(arm_ids, name="arm_ids", limits=self._limits)
        params = {"boost": check_evidence(boost, name="boost")}
        checks.check_flag(unpulled, name="unpulled")
        statement = change_statements.seed(unpulled=unpulled, history=self._history)
        states: dict[str, ArmState] = {}
        # Another round only for arms that others inserted, or deleted, during the last one.
        while missing := [key for key in ids if key not in states]:
            states |= await self._change(statement, learner, context, params | {"ids": missing})
        return dict(sorted(states.items()))

    async def reset(
        self,
        learner: str,
        arm_ids: Iterable[str] | None = None,
        *,
        context: Mapping[str, Any] | AllContexts | None = None,
    ) -> int:
        """Take arms back to the prior: these, or all; they stay stored, so no seed boosts them.

        Returns:
            How many states were there.

        Raises:
            InvalidInputError: The learner's name or an id was refused; nothing was changed.
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: There are more arms, or a larger context, than a limit allows.
        """
        return await self._remove(change_statements.reset, learner, arm_ids, context)

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

        Raises:
            InvalidInputError: The learner's name or an id was refused; nothing was forgotten.
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: There are more arms, or a larger context, than a limit allows.
        """
        return await self._remove(change_statements.remove, learner, arm_ids, context)

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
        policy: Policy | None = None,
        rng: np.random.Generator | None = None,
    ) -> Selection:
        """Choose among candidates, with one query for all of them.

        Where the history is on, a second statement logs the chosen arms with their probabilities.

        Args:
            candidates: Arms or ids, without repetition.
            k: How many; 0 or less means no cap.
            token_budget: What the chosen may cost together; 0 means no budget.
            baseline_rate: The share of rounds, 0 to 1, in which chance alone chooses.
            min_pulls: Arms observed less often are chosen first.
            policy: `ThompsonSampling()` by default, `UCB1()`, `EpsilonGreedy()`, or your own.
            rng: A seeded generator gives the same choice again.

        Raises:
            InvalidInputError: An id comes twice, an option is out of its range, or the policy gives
                no scores.
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: There are more arms, or a larger context, than a limit allows.
        """
        arms, ids = check_candidates(candidates, self._limits)
        rules = check_rules(k, token_budget, baseline_rate, min_pulls) | {"policy": policy}
        check_chance(policy, rng)
        params = {
            "learner": check_learner(learner),
            "context": hash_of(context, self._limits),
            "ids": ids,
        }
        rows = (await self._executor.run(read_statements.posteriors(), params)).rows if ids else ()
        states = {arm_id: (alpha, beta, pulls) for arm_id, alpha, beta, pulls in rows}
        selection = learning.select(arms, states, rng=rng, **rules)
        if self._history and selection.selected:
            # A tenth of a second of numpy for 200 candidates: not on the event loop's thread.
            likely = await asyncio.to_thread(
                learning.probabilities, arms, states, selection.selected, **rules
            )
            logged = {"ids": sorted(likely), "p": [likely[key] for key in sorted(likely)]}
            try:
                await self._change(history_statements.log_selection(), learner, context, logged)
            except ReadOnlyError as error:
                refused = error.retold(
                    "What was selected can't be logged here, and nothing was selected: connect to "
                    "the primary, or leave learning_history off where only standbys are."
                )
                raise refused from None
        metrics.learning_selections_total.add(
            1,
            {**metrics.label("learner", learner), "baseline": selection.is_baseline},
        )
        return selection

    async def _change(
        self,
        statement: Any,
        learner: str,
        context: Mapping[str, Any] | None,
        values: Mapping[str, Any],
        claim: Claim | None = None,
    ) -> dict[str, ArmState]:
        """Run what may insert arms of one context; nothing without any."""
        where = {"learner": check_learner(learner), "context": hash_of(context, self._limits)}
        if not values["ids"]:
            return {}
        kept = {"readable": readable(context)} if self._history else {}
        params = {**values, **where, **kept}
        if "deltas" in values and await self._executor.on_citus():
            deltas = json.loads(values["deltas"])
            rows = await self._apply_one_by_one(
                params, {key: deltas[key] for key in values["ids"]}, claim
            )
        else:
            rows = (await self._executor.run(statement, params)).rows
        return by_arm(sorted(rows, key=lambda row: str(row[1])))

    async def _count(
        self,
        statement: Callable[..., Any],
        learner: str,
        context: Mapping[str, Any] | None,
        values: Mapping[str, Any],
        *,
        added: Mapping[str, int],
        claim: Claim | None,
    ) -> tuple[dict[str, ArmState], bool]:
        """Run what adds to pulls; it writes nothing where one of the arms has no room for its own.

        Returns:
            The states, and whether anything was counted: not where the key's call was done before.

        Raises:
            CounterOverflowError: An arm has no room.
            IdempotencyKeyReusedError: The key is another call's.
        """
        change = statement(one=len(added) == 1, once=claim is not None, history=self._history)
        keyed = {**values, **claim.params} if claim else values
        while not (states := await self._change(change, learner, context, keyed, claim)) and added:
            done = await was_done(self._executor, claim)
            there = on_primary(read_statements.get())
            stored = await self._states(there, learner, context, ids=list(added))
            if done:
                return dict(sorted(stored.items())), False
            for key, state in stored.items():
                if state.pulls > checks.MAX_INT4 - added[key]:
                    arm = f"{messages.shown(key)} of {messages.shown(learner)}"
                    raise counter_is_full(f"pulls of arm {arm}")
        return states, bool(added)

    async def _remove(
        self,
        statement: Callable[..., Any],
        learner: str,
        arm_ids: Iterable[str] | None,
        context: Mapping[str, Any] | AllContexts | None,
    ) -> int:
        ids = (
            None
            if arm_ids is None
            else validation.check_ids(arm_ids, name="arm_ids", limits=self._limits)
        )
        which = which_arms(learner, ids, context, self._limits)
        if ids is not None and not ids:
            return 0
        removal = statement(**which.named, history=self._history)
        return (await self._executor.run(removal, which.params)).rowcount


class _NoRoomError(Exception):
    """An arm has no room for a pull, or the call's key is taken: nothing is done."""


__all__ = ["ALL_CONTEXTS", "AllContexts", "ArmRepository", "ArmStateLike", "LearnerMetrics"]
