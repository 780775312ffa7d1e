"""qortex's three PostgreSQL stores, with qortex's signatures, over the repositories."""

from qortex_db.stores.interoception import PostgresInteroceptionStore
from qortex_db.stores.learning import PostgresLearningStore
from qortex_db.stores.vec import PgVectorIndex

__all__ = ["PgVectorIndex", "PostgresInteroceptionStore", "PostgresLearningStore"]
