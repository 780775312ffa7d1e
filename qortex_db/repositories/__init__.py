"""Statements and methods, one room a subject. Repositories never begin, commit or roll back."""

from qortex_db.repositories.arms.repository import ALL_CONTEXTS, ArmRepository, LearnerMetrics
from qortex_db.repositories.embedding_cache.repository import (
    MAX_CACHED,
    CacheStats,
    EmbeddingModel,
    EmbeddingRepository,
)
from qortex_db.repositories.idempotency import IdempotencyRepository
from qortex_db.repositories.interoception.edge_records import EdgeStats, EdgeSummary, Promotion
from qortex_db.repositories.interoception.edges import EdgeRepository
from qortex_db.repositories.interoception.factors import (
    FactorChanges,
    FactorRepository,
    FactorSummary,
)
from qortex_db.repositories.progress import IngestProgress
from qortex_db.repositories.validation import MAX_LIMIT
from qortex_db.repositories.vectors.aggregates import Aggregate
from qortex_db.repositories.vectors.changes import Inserted
from qortex_db.repositories.vectors.index_advice import IndexAdvice, RecallProbe, Tuning
from qortex_db.repositories.vectors.model_changes import ModelChange
from qortex_db.repositories.vectors.repository import VectorRepository
from qortex_db.repositories.vectors.rows.records import (
    BranchHit,
    EmbeddingBatch,
    FacetCount,
    RejectedRecord,
    ScrollPage,
    SearchGroup,
    SearchGroups,
    SearchHit,
    SearchHits,
    VectorRecord,
)
from qortex_db.repositories.vectors.search.boosts import (
    Factor,
    FieldBoost,
    RecencyBoost,
    ValueBoost,
)
from qortex_db.repositories.vectors.search.explain import SearchPlan
from qortex_db.repositories.vectors.search.searches import VectorSearches
from qortex_db.repositories.vectors.search.text_queries import BM25
from qortex_db.repositories.vectors.word_counts import WordStatistics

__all__ = [
    "ALL_CONTEXTS",
    "BM25",
    "MAX_CACHED",
    "MAX_LIMIT",
    "Aggregate",
    "ArmRepository",
    "BranchHit",
    "CacheStats",
    "EdgeRepository",
    "EdgeStats",
    "EdgeSummary",
    "EmbeddingBatch",
    "EmbeddingModel",
    "EmbeddingRepository",
    "FacetCount",
    "Factor",
    "FactorChanges",
    "FactorRepository",
    "FactorSummary",
    "FieldBoost",
    "IdempotencyRepository",
    "IndexAdvice",
    "IngestProgress",
    "Inserted",
    "LearnerMetrics",
    "ModelChange",
    "Promotion",
    "RecallProbe",
    "RecencyBoost",
    "RejectedRecord",
    "ScrollPage",
    "SearchGroup",
    "SearchGroups",
    "SearchHit",
    "SearchHits",
    "SearchPlan",
    "Tuning",
    "ValueBoost",
    "VectorRecord",
    "VectorRepository",
    "VectorSearches",
    "WordStatistics",
]
