"""What the configuration of a Qdrant collection is here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from qdrant_client import models

from qortex_db.transfer.source import SourceDescription, SourceIndex, SourceVector
from qortex_db.transfer.sources.vendors.indexes import called, clamped_hnsw

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qortex_db.filters import Kind
    from qortex_db.models.vector_spec import Metric, Quantization, Storage
    from qortex_db.transfer.source import IdKind

_METRICS: Final[Mapping[str, Metric]] = {
    "Cosine": "cosine",
    "Dot": "inner_product",
    "Euclid": "l2",
    "Manhattan": "l1",
}
_KINDS: Final[Mapping[str, Kind]] = {
    "keyword": "keyword",
    "integer": "integer",
    "float": "float",
    "bool": "bool",
    "datetime": "instant",
    "text": "text",
    "uuid": "keyword",
}


def dense_and_sparse(parameters: models.CollectionParams) -> list[str]:
    """The names of a collection's vectors without its multivectors."""
    dense = [name for name, each in _dense(parameters).items() if each.multivector_config is None]
    return [*dense, *(parameters.sparse_vectors or {})]


def described(
    info: models.CollectionInfo, rows: int, ids: IdKind | None, *, local: bool
) -> SourceDescription:
    """What comes over of a collection, and how."""
    config = info.config
    notes: list[str] = []
    left_out: list[str] = []
    vectors = []
    for name, parameters in _dense(config.params).items():
        if parameters.multivector_config is not None:
            left_out.append(
                f"The multivectors {name!r}: a row here has one vector of a name, and no search "
                "takes the best of several."
            )
            continue
        vectors.append(_vector(name, parameters, config, notes, left_out))
    for name, sparse in (config.params.sparse_vectors or {}).items():
        vectors.append(_sparse(name, sparse, notes, left_out))
    indexes: list[SourceIndex] = []
    for path, index in (info.payload_schema or {}).items():
        _payload_index(path, index, indexes, left_out)
    if config.params.sharding_method == models.ShardingMethod.CUSTOM:
        left_out.append("The shard keys: one table has all points, whatever shard they were in.")
    if ids == "text":
        notes.append("Some ids are integers and some are UUIDs: all become texts.")
    if local:
        notes.append(
            "A local folder has no graph and no payload indexes, whatever was asked for: the index "
            "is the one that a server makes by default, and payload indexes are yours to declare."
        )
    return SourceDescription(rows, vectors, ids, indexes, left_out, notes)


def _dense(parameters: models.CollectionParams) -> Mapping[str, models.VectorParams]:
    found = parameters.vectors
    return {"": found} if isinstance(found, models.VectorParams) else found or {}


def _vector(
    name: str,
    parameters: models.VectorParams,
    config: models.CollectionConfig,
    notes: list[str],
    left_out: list[str],
) -> SourceVector:
    own = parameters.hnsw_config
    m, ef = config.hnsw_config.m, config.hnsw_config.ef_construct
    if own is not None:
        m = m if own.m is None else own.m
        ef = ef if own.ef_construct is None else own.ef_construct
    index = None
    if m:  # 0: "no graph"
        index, clamping = clamped_hnsw(m, ef, name)
        notes += clamping
    else:
        payload_m = (own and own.payload_m) or config.hnsw_config.payload_m
        notes.append(
            f"The graph of {called(name)} is switched off (m=0): searches read the whole table."
            + (" Graphs within tenants (payload_m) are not made: see partitions." * bool(payload_m))
        )
    storage = _storage(name, parameters.datatype, notes)
    wanted = parameters.quantization_config or config.quantization_config
    quantization = _quantization(name, wanted, notes, left_out)
    if quantization == storage or index is None:
        quantization = None  # it is so already, or there is no index to hold it
    metric = _METRICS[parameters.distance.value]
    if metric == "cosine":
        notes.append(
            f"Qdrant keeps {called(name)} at length 1, since its distance is Cosine: that is what "
            "is read, and not what was once written."
        )
    return SourceVector(name, parameters.size, metric, storage, quantization, index)


def _storage(name: str, datatype: models.Datatype | None, notes: list[str]) -> Storage:
    if datatype in (None, models.Datatype.FLOAT32):
        return "full"
    notes.append(
        f"The components of {called(name)} are {datatype.value}: here they take two bytes each"
        + (
            "."
            if datatype == models.Datatype.FLOAT16
            else ", in which whole numbers up to 2,048 are exact."
            if datatype == models.Datatype.UINT8
            else ", and are what Qdrant gives for them."
        )
    )
    return "half"


def _quantization(
    name: str, wanted: Any, notes: list[str], left_out: list[str]
) -> Quantization | None:
    if wanted is None:
        return None
    if isinstance(wanted, models.BinaryQuantization):
        encoding = wanted.binary.encoding
        if encoding not in (None, models.BinaryQuantizationEncoding.ONE_BIT):
            notes.append(
                f"The binary quantization of {called(name)} has {encoding.value}; here it has one "
                "bit a component."
            )
        return "binary"
    if isinstance(wanted, models.ScalarQuantization):
        notes.append(
            f"The scalar quantization (int8) of {called(name)} becomes an index of two bytes a "
            "component, the smallest that pgvector has above single bits."
        )
        return "half"
    kind = "product" if isinstance(wanted, models.ProductQuantization) else "turbo"
    left_out.append(
        f"The {kind} quantization of {called(name)}: pgvector has none; there is 'half' and "
        "'binary'."
    )
    return None


def _sparse(
    name: str, parameters: models.SparseVectorParams, notes: list[str], left_out: list[str]
) -> SourceVector:
    if parameters.modifier not in (None, models.Modifier.NONE):
        left_out.append(
            f"The modifier {parameters.modifier.value} of {called(name)}: its weights come over as "
            "they are stored, and nothing multiplies them by how rare they are in a search."
        )
    datatype = parameters.index.datatype if parameters.index else None
    if datatype not in (None, models.Datatype.FLOAT32):
        notes.append(f"The index of {called(name)} has {datatype.value}; here it has four bytes.")
    return SourceVector(name, None, "inner_product", "sparse")


def _payload_index(
    path: str, index: models.PayloadIndexInfo, indexes: list[SourceIndex], left_out: list[str]
) -> None:
    kind = _KINDS.get(index.data_type.value)
    if kind is None:
        left_out.append(
            f"The {index.data_type.value} index on {path!r}: there is no index of that kind."
        )
    elif "[" in path or '"' in path:
        left_out.append(
            f"The index on {path!r}: an index here is on one value of a row, and not on those in "
            "an array; the containment index serves these."
        )
    else:
        indexes.append(SourceIndex(path, kind))
    if getattr(index.params, "is_tenant", None):
        left_out.append(
            f"That {path!r} is a tenant's: rows of all tenants are in one table; partition it by "
            "that key, or give tenants policies."
        )
