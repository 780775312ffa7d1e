"""A factory for each model, and for each record that goes in or comes out.

Factories build, tests save. Values come from sequences and constants, never from chance.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import numpy as np
from factory.base import Factory, FactoryMetaClass
from factory.declarations import (
    Dict,
    LazyAttribute,
    LazyAttributeSequence,
    List,
    Maybe,
    Sequence,
    Trait,
)

from qortex_db import (
    Arm,
    ArmOutcome,
    ArmState,
    CachedEmbedding,
    Checkpoint,
    EdgeStats,
    EmbeddingChangeover,
    IdempotencyKey,
    IndexedDocument,
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
    WordFrequency,
    context_hash,
)
from qortex_db.sample import load_sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qortex_db.sample import Sample

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
        found: NDArray[np.float32] = embeddings[number % len(embeddings)]
        return found
    vector = np.cos((number + 1.0) * np.arange(1, dimensions + 1))
    made: NDArray[np.float32] = (vector / np.linalg.norm(vector)).astype(np.float32)
    return made


def pair(number: int) -> tuple[str, str]:
    """The key of an edge."""
    return f"a{number:05}", f"b{number:05}"


def edges(size: int, **given: Any) -> dict[tuple[str, str], EdgeStats]:
    """Stats by pair, as `edges.save` takes them."""
    return {pair(n): stats for n, stats in enumerate(EdgeStatsFactory.build_batch(size, **given))}


class VectorFactory(Factory[T]):
    """Of vectors: the base of factories for models with `VectorMixin`, which name their `model`.

    Params:
        dimensions: Of the embedding, 384 unless said; those of 384 are real texts'.
        with_payload: Give it one.
        with_document: Likewise.
    """

    class Meta:
        abstract = True

    class Params:
        dimensions = REAL
        with_payload = False  # a trait that is not asked for would have every value rendered
        with_document = False

    id = Sequence("v{:05}".format)
    embedding = LazyAttributeSequence(lambda made, n: embedding(n, made.dimensions))
    payload = Maybe("with_payload", Sequence(payload))
    document = Maybe("with_document", Sequence(lambda n: passage(n)["text"]))


class QortexVectorFactory(VectorFactory[QortexVector]):
    """Rows of the default table of vectors."""

    class Meta:
        model = QortexVector


class VectorRecordFactory(VectorFactory[VectorRecord]):
    """Records as `upsert` takes them."""

    class Meta:
        model = VectorRecord


class SearchHitFactory(Factory[SearchHit]):
    """Without an embedding, as searches give them unless asked."""

    class Meta:
        model = SearchHit

    id = Sequence("v{:05}".format)
    score = 1.0
    payload = Dict({})


class CachedEmbeddingFactory(Factory[CachedEmbedding]):
    """Rows of the cache of embeddings, by the `text` that is given."""

    class Meta:
        model = CachedEmbedding

    class Params:
        text = Sequence("text {}".format)

    text_hash = LazyAttribute(lambda made: hashlib.sha256(made.text.encode()).digest())
    model = "model"
    revision = ""
    dimensions = 0
    embedding = Sequence(embedding)


class InteroceptionFactorFactory(Factory[InteroceptionFactor]):
    """Rows of factors; `old` ones were changed long ago."""

    class Meta:
        model = InteroceptionFactor

    class Params:
        old = Trait(updated_at=OLD)

    node_id = Sequence("n{:05}".format)
    weight = 2.0


class InteroceptionEdgeFactory(Factory[InteroceptionEdge]):
    """Rows of edges that were seen once; `ready` to be promoted, thrice."""

    class Meta:
        model = InteroceptionEdge

    class Params:
        old = Trait(last_seen=OLD)
        ready = Trait(hit_count=3, scores=List([0.9]))

    src_id = Sequence(lambda n: pair(n)[0])
    tgt_id = Sequence(lambda n: pair(n)[1])
    hit_count = 1
    scores = List([0.5])


class EdgeStatsFactory(Factory[EdgeStats]):
    """Of an edge that was seen once; `ready` to be promoted it was seen thrice."""

    class Meta:
        model = EdgeStats

    class Params:
        old = Trait(last_seen=OLD.isoformat())
        ready = Trait(hit_count=3, scores=List([0.9]))

    hit_count = 1
    scores = List([0.5])


class PromotionFactory(Factory[Promotion]):
    """Of an edge that was `ready`."""

    class Meta:
        model = Promotion

    src_id = Sequence(lambda n: pair(n)[0])
    tgt_id = Sequence(lambda n: pair(n)[1])
    hit_count = 3
    avg_score = 0.9


class _PosteriorFactory(Factory[T]):
    """The prior; `pulled`, four rewards that sum up to three."""

    class Meta:
        abstract = True

    class Params:
        pulled = Trait(alpha=4.0, beta=2.0, pulls=4, total_reward=3.0)

    alpha = 1.0
    beta = 1.0
    pulls = 0
    total_reward = 0.0


class LearningArmStateFactory(_PosteriorFactory[LearningArmState]):
    """Rows of arms: the prior, or `pulled`."""

    class Meta:
        model = LearningArmState

    class Params:
        old = Trait(last_updated=OLD)

    learner_name = "l"
    context_hash = context_hash(None)
    arm_id = Sequence("arm{:05}".format)


class ArmStateFactory(_PosteriorFactory[ArmState]):
    """States of arms: the prior, or `pulled`."""

    class Meta:
        model = ArmState

    class Params:
        old = Trait(last_updated=OLD.isoformat())


class LearningEventFactory(Factory[LearningEvent]):
    """That of an arm's first reward; the server numbers it."""

    class Meta:
        model = LearningEvent

    learner_name = "l"
    context_hash = context_hash(None)
    arm_id = Sequence("arm{:05}".format)
    kind = "observe"
    alpha_added = 1.0
    beta_added = 0.0
    pulls_added = 1
    alpha = 2.0
    beta = 1.0
    pulls = 1
    total_reward = 1.0
    last_updated = OLD


class LearningContextFactory(Factory[LearningContext]):
    """Rows of contexts, with their hashes."""

    class Meta:
        model = LearningContext

    context = Sequence(lambda n: {"task": f"task{n}"})
    context_hash = LazyAttribute(lambda made: context_hash(made.context))


class IdempotencyKeyFactory(Factory[IdempotencyKey]):
    """Rows of keys of calls that were made."""

    class Meta:
        model = IdempotencyKey

    key = Sequence("request{:05}".format)
    digest = LazyAttribute(lambda made: hashlib.sha256(made.key.encode()).digest())


class WordFrequencyFactory(Factory[WordFrequency]):
    """Rows of how many documents have a word."""

    class Meta:
        model = WordFrequency

    table_name = "public.qortex_vectors"
    word = Sequence("word{}".format)
    documents = 2


class EmbeddingChangeoverFactory(Factory[EmbeddingChangeover]):
    """Rows of tables on their way to another model."""

    class Meta:
        model = EmbeddingChangeover

    table_name = Sequence("public.notes{}".format)
    column_name = "vec"
    old_name = "old"
    new_name = "v2"
    metric = "cosine"
    storage = "full"


class CheckpointFactory(Factory[Checkpoint]):
    """Rows of how far long work is."""

    class Meta:
        model = Checkpoint

    work = Sequence("import{}".format)
    position = LazyAttribute(lambda made: {"after": made.rows_read})
    rows_read = 500
    rows_written = 499
    rows_rejected = 1


class IndexedDocumentFactory(Factory[IndexedDocument]):
    """Rows of what an index of a framework last wrote."""

    class Meta:
        model = IndexedDocument

    namespace = "notes"
    key = Sequence("document{:05}".format)
    group_id = "notes.md"
    updated_at = datetime(2026, 1, 1, tzinfo=UTC)


class ArmFactory(Factory[Arm]):
    """Candidates of a selection."""

    class Meta:
        model = Arm

    id = Sequence("arm{:05}".format)


class ArmOutcomeFactory(Factory[ArmOutcome]):
    """A whole reward."""

    class Meta:
        model = ArmOutcome

    arm_id = Sequence("arm{:05}".format)
    reward = 1.0


class LearnerConfigFactory(Factory[LearnerConfig]):
    """Of a learner that leaves nothing to chance beside its policy."""

    class Meta:
        model = LearnerConfig

    name = Sequence("learner{}".format)
    baseline_rate = 0.0


FACTORIES: Final[list[Any]] = [
    made
    for made in list(globals().values())
    if isinstance(made, FactoryMetaClass) and not cast("Any", made)._meta.abstract  # noqa: SLF001 - it has no other name
]


def begin_anew() -> None:
    """Let all sequences begin at 0, before a test: it gets the same values whatever ran before."""
    for made in FACTORIES:
        made.reset_sequence()
