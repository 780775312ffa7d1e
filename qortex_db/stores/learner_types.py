"""What a `Learner` takes and gives, in qortex's shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

from qortex_db import checks
from qortex_db.errors import InvalidInputError
from qortex_db.learning import Arm
from qortex_db.repositories import validation

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

    from qortex_db.learning import RewardModel


class ArmLike(Protocol):
    """Any object with the attributes of `Arm`, such as qortex's own."""

    @property
    def id(self) -> str: ...
    @property
    def token_cost(self) -> int: ...


class OutcomeLike(Protocol):
    """Any object with the attributes of `ArmOutcome`, such as qortex's own."""

    @property
    def arm_id(self) -> str: ...
    @property
    def reward(self) -> float: ...
    @property
    def outcome(self) -> str: ...
    @property
    def context(self) -> Mapping[str, Any]: ...


class LearnerConfigLike(Protocol):
    """Any object with the attributes of `LearnerConfig`, such as qortex's own."""

    @property
    def name(self) -> str: ...
    @property
    def baseline_rate(self) -> float: ...
    @property
    def seed_boost(self) -> float: ...
    @property
    def seed_arms(self) -> Sequence[str]: ...
    @property
    def min_pulls(self) -> int: ...


@dataclass(slots=True)
class LearnerConfig:
    """How a learner chooses, and which arms it starts with; it may be altered at any time.

    Attributes:
        name: The learner, whose arms are shared by all that have its name.
        baseline_rate: The share of rounds, 0 to 1, in which chance alone chooses.
        seed_boost: The alpha that seed arms begin with.
        seed_arms: Arms of the default context that `Learner.create` seeds.
        min_pulls: Arms observed less often are chosen first.
    """

    name: str
    baseline_rate: float = 0.1
    seed_boost: float = 2.0
    seed_arms: Sequence[str] = ()
    min_pulls: int = 0


@dataclass(frozen=True, slots=True)
class ArmOutcome:
    """What came of using an arm.

    Attributes:
        reward: 0 to 1; where it is 0, the reward model says what the outcome is worth.
        outcome: "accepted", "partial", "rejected", or a word of your reward model; "" for none.
        context: Counts where the call names no context of its own.
    """

    arm_id: str
    reward: float = 0.0
    outcome: str = ""
    context: Mapping[str, Any] = field(default_factory=dict, hash=False)


class _ArmMarker:
    """How pydantic sees any object with the attributes of `Arm`: as one."""

    def __get_pydantic_core_schema__(self, _: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema  # noqa: PLC0415 - only pydantic's users need it

        arm = handler.generate_schema(Arm)
        return core_schema.no_info_wrap_validator_function(
            _any_arm,
            arm,
            serialization=core_schema.wrap_serializer_function_ser_schema(
                lambda value, write: write(as_arm(value)), schema=arm
            ),
        )


def _any_arm(value: Any, read: Callable[[Any], Any]) -> Any:
    return value if hasattr(value, "id") and hasattr(value, "token_cost") else read(value)


def as_arm(arm: ArmLike) -> Arm:
    """Any object with the attributes of `Arm` as one."""
    return arm if isinstance(arm, Arm) else Arm(arm.id, arm.token_cost)


_AS_ARM: Final = _ArmMarker()


@dataclass(frozen=True, slots=True)
class SelectionResult:
    """What a learner chose, as the arms that it was given.

    Attributes:
        selected: Forced ones first, then best score first.
        excluded: The others, in the candidates' order.
        is_baseline: Whether chance alone chose, to explore.
        scores: By id; 0.5 for the chosen of a baseline round.
        token_budget: What the chosen might cost; 0 means anything.
        used_tokens: What they cost.
    """

    selected: list[Annotated[ArmLike, _AS_ARM]]
    excluded: list[Annotated[ArmLike, _AS_ARM]]
    is_baseline: bool
    scores: dict[str, float]
    token_budget: int
    used_tokens: int


def as_arms(candidates: Iterable[ArmLike]) -> tuple[list[ArmLike], list[Arm]]:
    """The caller's arms and ours, in the same order.

    Raises:
        InvalidInputError: Something has not the attributes of an arm.
    """
    given = validation.check_list(candidates, name="candidates", of="list of arms")
    try:
        return given, [as_arm(arm) for arm in given]
    except AttributeError:
        raise InvalidInputError("A candidate has no id or token_cost; pass an Arm.") from None


def read_outcome(
    outcome: OutcomeLike, model: RewardModel, context: Mapping[str, Any] | None
) -> tuple[str, float, Mapping[str, Any]]:
    """The arm that an outcome is of, what it is worth, and in which context it counts.

    Raises:
        InvalidInputError: It has not the attributes of an outcome.
    """
    try:
        arm_id, reward, word = outcome.arm_id, outcome.reward, outcome.outcome
        of_outcome = outcome.context
    except AttributeError:
        raise InvalidInputError(
            f"An outcome is a {type(outcome).__name__} without arm_id, reward, outcome or context; "
            "pass an ArmOutcome."
        ) from None
    # Outside of it: a reward model's own errors are not the outcome's.
    given = checks.check_number(reward, name="reward", low=0, high=1)
    if word is not None and checks.check_text(word, name="outcome") and not given:
        given = model.compute(word)
    if isinstance(context, Mapping) and not context:
        context = None
    return arm_id, given, of_outcome if context is None else context


def as_pairs(deltas: object) -> dict[str, tuple[Any, Any]]:
    """Credit by arm as pairs; what a mapping does not say is 0.

    Raises:
        InvalidInputError: It is no mapping of mappings.
    """
    if isinstance(deltas, Mapping):
        deltas = checks.as_dict(deltas, name="deltas")
    try:
        return {
            arm_id: (delta.get("alpha_delta", 0.0), delta.get("beta_delta", 0.0))
            for arm_id, delta in deltas.items()  # type: ignore[attr-defined]
        }
    except AttributeError:
        raise InvalidInputError(
            'deltas has to be {arm_id: {"alpha_delta": number, "beta_delta": number}}.'
        ) from None
