"""A factory for each model, and for each record that goes in or comes out.

Factories build, tests save. Values come from sequences and constants, never from chance; a test's
sequences begin at 0.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

import factory
import numpy as np

from qortex_db import (
    Arm,
    ArmOutcome,
    ArmState,
    CachedEmbedding,
    EdgeStats,
    IdempotencyKey,
    InteroceptionEdge,
    InteroceptionFactor,
    LearnerConfig,
    LearningArmState,
    LearningContext,
    LearningEvent,
    Promotion,
    QortexVector,
    SearchHit,
    VectorRecord,
    context_hash,
)
from qortex_db.cli.sample import load_sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qortex_db.cli.sample import Sample

T = TypeVar("T")

OLD: Final = datetime(2025, 1, 1, tzinfo=UTC)
"""What the traits called `old` say; as text in the records."""
REAL: Final = 384
"""The dimensions of the passages that the package carries, 800 of them."""


@cache
def sample() -> Sample:
    return load_sample()


def passage(number: int) -> dict[str, Any]:
    passages = sample().passages
    return passages[number % len(passages)]


def payload(number: int) -> dict[str, Any]:
    return {key: passage(number)[key] for key in ("module", "kind")}


def embedding(number: int, dimensions: int = REAL) -> NDArray[np.float32]:
    """A passage's own; of other dimensions a unit vector, another one for each number."""
    if dimensions == REAL:
        embeddings = sample().passage_embeddings
        return embeddings[number % len(embeddings)]
    vector = np.cos((number + 1.0) * np.arange(1, dimensions + 1))
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def pair(number: int) -> tuple[str, str]:
    """The key of an edge."""
    return f"a{number:05}", f"b{number:05}"


def edges(size: int, **given: Any) -> dict[tuple[str, str], EdgeStats]:
    """Stats by pair, as `edges.save` takes them."""
    return {pair(n): stats for n, stats in enumerate(EdgeStatsFactory.build_batch(size, **given))}


class _VectorFactory(factory.Factory[T]):
    class Meta:
        abstract = True

    class Params:
        dimensions = REAL
        with_payload = False  # a trait that is not asked for would have every value rendered
        with_document = False

    id = factory.Sequence("v{:05}".format)
    embedding = factory.LazyAttributeSequence(lambda made, n: embedding(n, made.dimensions))
    payload = factory.Maybe("with_payload", factory.Sequence(payload))
    document = factory.Maybe("with_document", factory.Sequence(lambda n: passage(n)["text"]))


class QortexVectorFactory(_VectorFactory[QortexVector]):
    class Meta:
        model = QortexVector


class VectorRecordFactory(_VectorFactory[VectorRecord]):
    class Meta:
        model = VectorRecord


class SearchHitFactory(factory.Factory[SearchHit]):
    """Without an embedding, as searches give them unless asked."""

    class Meta:
        model = SearchHit

    id = factory.Sequence("v{:05}".format)
    score = 1.0
    payload = factory.Dict({})


class CachedEmbeddingFactory(factory.Factory[CachedEmbedding]):
    class Meta:
        model = CachedEmbedding

    class Params:
        text = factory.Sequence("text {}".format)

    text_hash = factory.LazyAttribute(lambda made: hashlib.sha256(made.text.encode()).digest())
    model = "model"
    revision = ""
    dimensions = 0
    embedding = factory.Sequence(embedding)


class InteroceptionFactorFactory(factory.Factory[InteroceptionFactor]):
    class Meta:
        model = InteroceptionFactor

    class Params:
        old = factory.Trait(updated_at=OLD)

    node_id = factory.Sequence("n{:05}".format)
    weight = 2.0


class InteroceptionEdgeFactory(factory.Factory[InteroceptionEdge]):
    class Meta:
        model = InteroceptionEdge

    class Params:
        old = factory.Trait(last_seen=OLD)
        ready = factory.Trait(hit_count=3, scores=factory.List([0.9]))

    src_id = factory.Sequence(lambda n: pair(n)[0])
    tgt_id = factory.Sequence(lambda n: pair(n)[1])
    hit_count = 1
    scores = factory.List([0.5])


class EdgeStatsFactory(factory.Factory[EdgeStats]):
    """Of an edge that was seen once; `ready` to be promoted it was seen thrice."""

    class Meta:
        model = EdgeStats

    class Params:
        old = factory.Trait(last_seen=OLD.isoformat())
        ready = factory.Trait(hit_count=3, scores=factory.List([0.9]))

    hit_count = 1
    scores = factory.List([0.5])


class PromotionFactory(factory.Factory[Promotion]):
    """Of an edge that was `ready`."""

    class Meta:
        model = Promotion

    src_id = factory.Sequence(lambda n: pair(n)[0])
    tgt_id = factory.Sequence(lambda n: pair(n)[1])
    hit_count = 3
    avg_score = 0.9


class _PosteriorFactory(factory.Factory[T]):
    """The prior; `pulled`, four rewards that sum up to three."""

    class Meta:
        abstract = True

    class Params:
        pulled = factory.Trait(alpha=4.0, beta=2.0, pulls=4, total_reward=3.0)

    alpha = 1.0
    beta = 1.0
    pulls = 0
    total_reward = 0.0


class LearningArmStateFactory(_PosteriorFactory[LearningArmState]):
    class Meta:
        model = LearningArmState

    class Params:
        old = factory.Trait(last_updated=OLD)

    learner_name = "l"
    context_hash = context_hash(None)
    arm_id = factory.Sequence("arm{:05}".format)


class ArmStateFactory(_PosteriorFactory[ArmState]):
    class Meta:
        model = ArmState

    class Params:
        old = factory.Trait(last_updated=OLD.isoformat())


class LearningEventFactory(factory.Factory[LearningEvent]):
    """That of an arm's first reward; the server numbers it."""

    class Meta:
        model = LearningEvent

    learner_name = "l"
    context_hash = context_hash(None)
    arm_id = factory.Sequence("arm{:05}".format)
    kind = "observe"
    alpha_added = 1.0
    beta_added = 0.0
    pulls_added = 1
    alpha = 2.0
    beta = 1.0
    pulls = 1
    total_reward = 1.0
    last_updated = OLD


class LearningContextFactory(factory.Factory[LearningContext]):
    class Meta:
        model = LearningContext

    context = factory.Sequence(lambda n: {"task": f"task{n}"})
    context_hash = factory.LazyAttribute(lambda made: context_hash(made.context))


class IdempotencyKeyFactory(factory.Factory[IdempotencyKey]):
    class Meta:
        model = IdempotencyKey

    key = factory.Sequence("request{:05}".format)
    digest = factory.LazyAttribute(lambda made: hashlib.sha256(made.key.encode()).digest())


class ArmFactory(factory.Factory[Arm]):
    class Meta:
        model = Arm

    id = factory.Sequence("arm{:05}".format)


class ArmOutcomeFactory(factory.Factory[ArmOutcome]):
    """A whole reward."""

    class Meta:
        model = ArmOutcome

    arm_id = factory.Sequence("arm{:05}".format)
    reward = 1.0


class LearnerConfigFactory(factory.Factory[LearnerConfig]):
    """Of a learner that leaves nothing to chance beside its policy."""

    class Meta:
        model = LearnerConfig

    name = factory.Sequence("learner{}".format)
    baseline_rate = 0.0


FACTORIES: Final = [
    made
    for made in list(globals().values())
    if isinstance(made, factory.base.FactoryMetaClass) and not made._meta.abstract
]


def begin_anew() -> None:
    for made in FACTORIES:
        made.reset_sequence()
