"""The tables, as ordinary declarative models."""

from qortex_db.models.arm import LearningArmState
from qortex_db.models.base import NAMING_CONVENTION, Base
from qortex_db.models.cache import CachedEmbedding
from qortex_db.models.changeover import EmbeddingChangeover
from qortex_db.models.checkpoint import Checkpoint
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
from qortex_db.models.indexed_document import IndexedDocument
from qortex_db.models.mixin import VectorMixin
from qortex_db.models.partitions import Partitions
from qortex_db.models.vector import QortexVector
from qortex_db.models.vector_spec import HNSW, IVFFlat, VectorSpec
from qortex_db.models.word_frequency import WordFrequency
from qortex_db.names import own_columns, own_tables

__all__ = [
    "HNSW",
    "NAMING_CONVENTION",
    "Base",
    "CachedEmbedding",
    "Checkpoint",
    "Collection",
    "EmbeddingChangeover",
    "IVFFlat",
    "IdempotencyKey",
    "IndexedDocument",
    "InteroceptionEdge",
    "InteroceptionFactor",
    "LearningArmState",
    "LearningContext",
    "LearningEvent",
    "Partitions",
    "QortexVector",
    "VectorMixin",
    "VectorSpec",
    "WordFrequency",
    "collection_of",
    "vector_column",
    "vector_index",
]

# Before a host puts models of its own on our Base.
own_tables.update(table.name for table in Base.metadata.tables.values())
own_columns.update(column.name for table in Base.metadata.tables.values() for column in table.c)
