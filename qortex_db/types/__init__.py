"""The column types of embeddings, and the conversions between Python's vectors and pgvector's."""

from qortex_db.types.documents import JsonText, SentJson
from qortex_db.types.half import MAX_HALF, HalfEmbedding, check_half
from qortex_db.types.sparse import (
    MAX_INDEXED_NONZEROS,
    MAX_NONZEROS,
    MAX_SPARSE_DIMENSIONS,
    SparseEmbedding,
    SparseVector,
)
from qortex_db.types.vector import (
    MAX_DIMENSIONS,
    DistanceComparator,
    Embedding,
    EncodedEmbeddings,
    SentEmbedding,
    as_float32,
    check_dimensions,
    check_setting,
    check_values,
    decode,
    encode,
    encode_any,
    encode_many,
    from_binary,
    from_lists,
    to_numpy,
)

__all__ = [
    "MAX_DIMENSIONS",
    "MAX_HALF",
    "MAX_INDEXED_NONZEROS",
    "MAX_NONZEROS",
    "MAX_SPARSE_DIMENSIONS",
    "DistanceComparator",
    "Embedding",
    "EncodedEmbeddings",
    "HalfEmbedding",
    "JsonText",
    "SentEmbedding",
    "SentJson",
    "SparseEmbedding",
    "SparseVector",
    "as_float32",
    "check_dimensions",
    "check_half",
    "check_setting",
    "check_values",
    "decode",
    "encode",
    "encode_any",
    "encode_many",
    "from_binary",
    "from_lists",
    "to_numpy",
]
