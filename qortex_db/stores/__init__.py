"""qortex's three PostgreSQL stores and its learner, with its signatures, over the repositories."""

from qortex_db.stores.interoception import PostgresInteroceptionStore
from qortex_db.stores.learner import Learner
from qortex_db.stores.learner_types import ArmOutcome, LearnerConfig, SelectionResult
from qortex_db.stores.learning import PostgresLearningStore
from qortex_db.stores.vec import PgVectorIndex

__all__ = [
    "ArmOutcome",
    "Learner",
    "LearnerConfig",
    "PgVectorIndex",
    "PostgresInteroceptionStore",
    "PostgresLearningStore",
    "SelectionResult",
]
