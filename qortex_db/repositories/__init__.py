"""Statements and methods, one file a table. Repositories never begin, commit or roll back."""

from qortex_db.repositories.advice import IndexAdvice, RecallProbe, Tuning
from qortex_db.repositories.arms import ALL_CONTEXTS, ArmRepository, LearnerMetrics
from qortex_db.repositories.edges import EdgeRepository, EdgeStats, EdgeSummary, Promotion
from qortex_db.repositories.embeddings import (
    MAX_CACHED,
    CacheStats,
    EmbeddingModel,
    EmbeddingRepository,
)
from qortex_db.repositories.factors import FactorChanges, FactorRepository, FactorSummary
from qortex_db.repositories.plans import SearchPlan
from qortex_db.repositories.records import (
    MAX_LIMIT,
    FacetCount,
    ScrollPage,
    SearchGroup,
    SearchGroups,
    SearchHit,
    SearchHits,
    VectorRecord,
)
from qortex_db.repositories.searches import VectorSearches
from qortex_db.repositories.vectors import VectorRepository

__all__ = [
    "ALL_CONTEXTS",
    "MAX_CACHED",
    "MAX_LIMIT",
    "ArmRepository",
    "CacheStats",
    "EdgeRepository",
    "EdgeStats",
    "EdgeSummary",
    "EmbeddingModel",
    "EmbeddingRepository",
    "FacetCount",
    "FactorChanges",
    "FactorRepository",
    "FactorSummary",
    "IndexAdvice",
    "LearnerMetrics",
    "Promotion",
    "RecallProbe",
    "ScrollPage",
    "SearchGroup",
    "SearchGroups",
    "SearchHit",
    "SearchHits",
    "SearchPlan",
    "Tuning",
    "VectorRecord",
    "VectorRepository",
    "VectorSearches",
]
