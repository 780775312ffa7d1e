"""The tables, as ordinary declarative models."""

from qortex_db.models.arm import LearningArmState
from qortex_db.models.base import NAMING_CONVENTION, Base
from qortex_db.models.cache import CachedEmbedding
from qortex_db.models.collection import (
    Collection,
    collection_of,
    vector_column,
    vector_index,
)
from qortex_db.models.edge import InteroceptionEdge
from qortex_db.models.event import LearningContext, LearningEvent
from qortex_db.models.factor import InteroceptionFactor
from qortex_db.models.idempotency import IdempotencyKey
from qortex_db.models.mixin import VectorMixin
from qortex_db.models.vector import QortexVector
from qortex_db.models.vector_spec import HNSW, IVFFlat, VectorSpec

__all__ = [
    "HNSW",
    "NAMING_CONVENTION",
    "Base",
    "CachedEmbedding",
    "Collection",
    "IVFFlat",
    "IdempotencyKey",
    "InteroceptionEdge",
    "InteroceptionFactor",
    "LearningArmState",
    "LearningContext",
    "LearningEvent",
    "QortexVector",
    "VectorMixin",
    "VectorSpec",
    "collection_of",
    "vector_column",
    "vector_index",
]
