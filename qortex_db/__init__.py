"""The PostgreSQL memory of an AI system: embeddings, factors, edges and bandit arms."""

from qortex_db.__about__ import __version__
from qortex_db.database import Database
from qortex_db.errors import (
    ConflictError,
    DimensionMismatchError,
    InvalidInputError,
    LockTimeoutError,
    NotFoundError,
    OutcomeUnknownError,
    PoolTimeoutError,
    QortexDbError,
    QueryTimeoutError,
    SchemaVersionError,
    SerializationConflictError,
    UnavailableError,
)
from qortex_db.learning import Arm, ArmState, Selection, context_hash
from qortex_db.models import (
    InteroceptionEdge,
    InteroceptionFactor,
    LearningArmState,
    QortexVector,
)
from qortex_db.repositories import (
    ALL_CONTEXTS,
    MAX_LIMIT,
    EdgeStats,
    FacetCount,
    ScrollPage,
    SearchGroup,
    SearchGroups,
    SearchHit,
    SearchHits,
    VectorRecord,
)
from qortex_db.search import payload_index
from qortex_db.settings import Settings
from qortex_db.stores import PgVectorIndex, PostgresInteroceptionStore, PostgresLearningStore
from qortex_db.uow import UnitOfWork, unit_of_work

__all__ = [
    "ALL_CONTEXTS",
    "MAX_LIMIT",
    "Arm",
    "ArmState",
    "ConflictError",
    "Database",
    "DimensionMismatchError",
    "EdgeStats",
    "FacetCount",
    "InteroceptionEdge",
    "InteroceptionFactor",
    "InvalidInputError",
    "LearningArmState",
    "LockTimeoutError",
    "NotFoundError",
    "OutcomeUnknownError",
    "PgVectorIndex",
    "PoolTimeoutError",
    "PostgresInteroceptionStore",
    "PostgresLearningStore",
    "QortexDbError",
    "QortexVector",
    "QueryTimeoutError",
    "SchemaVersionError",
    "ScrollPage",
    "SearchGroup",
    "SearchGroups",
    "SearchHit",
    "SearchHits",
    "Selection",
    "SerializationConflictError",
    "Settings",
    "UnavailableError",
    "UnitOfWork",
    "VectorRecord",
    "__version__",
    "context_hash",
    "payload_index",
    "unit_of_work",
]
