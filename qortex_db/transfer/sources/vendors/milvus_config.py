"""What the schema and the indexes of a Milvus collection are here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pymilvus import DataType

from qortex_db.models.vector_spec import HNSW, IVFFlat
from qortex_db.transfer.source import SourceDescription, SourceIndex, SourceVector
from qortex_db.transfer.sources.vendors.indexes import called, clamped_hnsw

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qortex_db.filters import Kind
    from qortex_db.models.vector_spec import IndexSpec, Metric, Quantization, Storage

VECTORS: Final[Mapping[DataType, Storage]] = {
    DataType.FLOAT_VECTOR: "full",
    DataType.FLOAT16_VECTOR: "half",
    DataType.BFLOAT16_VECTOR: "full",
    DataType.INT8_VECTOR: "half",
    DataType.SPARSE_FLOAT_VECTOR: "sparse",
}
_METRICS: Final[Mapping[str, Metric]] = {"COSINE": "cosine", "L2": "l2", "IP": "inner_product"}
_INTEGERS: Final = (DataType.INT8, DataType.INT16, DataType.INT32, DataType.INT64)
_KINDS: Final[Mapping[DataType, Kind]] = {
    DataType.VARCHAR: "keyword",
    DataType.BOOL: "bool",
    DataType.FLOAT: "float",
    DataType.DOUBLE: "float",
    **dict.fromkeys(_INTEGERS, "integer"),
}
_WHY_NOT: Final = {
    "BINARY_VECTOR": "there is no vector of bits here, but indexes of bits on full ones",
}


def read_fields(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The fields that come over: all but those that Milvus does not give, or no column takes."""
    made = _made_by_functions(schema)
    return [
        each
        for each in schema["fields"]
        if each["name"] not in made
        and not (each["type"].name.endswith("_VECTOR") and each["type"] not in VECTORS)
        and "STRUCT" not in each["type"].name
    ]


def _made_by_functions(schema: Mapping[str, Any]) -> set[str]:
    """What BM25 and MinHash make of texts, which is searched and can't be read."""
    return {
        name
        for function in schema.get("functions") or ()
        if "TEXTEMBEDDING" not in str(getattr(function["type"], "name", function["type"])).upper()
        for name in function["output_field_names"]
    }


def described(
    schema: Mapping[str, Any], indexes: Mapping[str, Mapping[str, Any]], rows: int
) -> SourceDescription:
    """What comes over of a collection, and how."""
    notes: list[str] = []
    left_out: list[str] = []
    fields = read_fields(schema)
    key = next(each for each in schema["fields"] if each.get("is_primary"))
    names = {each["name"] for each in fields}
    for each in schema["fields"]:
        if each["name"] not in names:
            kind = each["type"].name
            why = _WHY_NOT.get(kind, "a function of Milvus's makes it, or no column here takes it")
            left_out.append(f"The field {each['name']!r} ({kind}): {why}.")
    left_out += [
        f"The structs {each['name']!r}: a row here has one vector of a name."
        for each in schema.get("struct_array_fields") or ()
    ]
    vectors = [
        _vector(each, indexes.get(each["name"]), notes, left_out)
        for each in fields
        if each["type"] in VECTORS
    ]
    payload_indexes: list[SourceIndex] = []
    for each in fields:
        if each["type"] not in VECTORS and not each.get("is_primary"):
            _payload_index(each, indexes.get(each["name"]), payload_indexes, left_out)
    if schema.get("num_partitions", 1) > 1:
        left_out.append(
            f"The {schema['num_partitions']} partitions: rows of all are read, and come into one "
            "table, which you may partition by a key of the payload."
        )
    for function in schema.get("functions") or ():
        left_out.append(
            f"The function {function['name']!r}: declare full text on the document, or embed by a "
            "model of yours."
        )
    if (schema.get("properties") or {}).get("collection.ttl.seconds"):
        left_out.append("The time to live: delete old rows by a key of the payload.")
    if schema.get("enable_dynamic_field"):
        notes.append("Dynamic fields are keys of the payload, beside those of the schema.")
    return SourceDescription(
        rows,
        vectors,
        "integer" if key["type"] == DataType.INT64 else "text",
        payload_indexes,
        left_out,
        notes,
    )


def _vector(
    field: Mapping[str, Any],
    index: Mapping[str, Any] | None,
    notes: list[str],
    left_out: list[str],
) -> SourceVector:
    name, kind, storage = field["name"], field["type"], VECTORS[field["type"]]
    if kind in (DataType.INT8_VECTOR, DataType.BFLOAT16_VECTOR):
        notes.append(
            f"The components of {called(name)} are {kind.name.split('_')[0].lower()}; here they "
            f"take {'two' if storage == 'half' else 'four'} bytes each, which keep them exactly."
        )
    if field.get("nullable"):
        notes.append(
            f"{called(name).capitalize()} may be null, for which Milvus's client gives zeros: one "
            "of zeros alone comes over as none."
        )
    words = dict(index or {})
    default: Metric = "inner_product" if storage == "sparse" else "cosine"
    metric = _METRICS.get(str(words.get("metric_type", "")).upper(), default)
    if storage == "sparse":
        return SourceVector(name, None, "inner_product", "sparse")
    spec, quantization = _index(name, words, metric, notes, left_out)
    if quantization == storage or spec is None:
        quantization = None
    return SourceVector(name, int(field["params"]["dim"]), metric, storage, quantization, spec)


def _index(
    name: str,
    words: Mapping[str, Any],
    metric: Metric,
    notes: list[str],
    left_out: list[str],
) -> tuple[IndexSpec | None, Quantization | None]:
    kind = str(words.get("index_type", "")).upper()
    if kind in ("", "FLAT"):
        return None, None
    quantization: Quantization | None = None
    if "SQ" in kind:
        quantization = "half"
        notes.append(
            f"The scalar quantization ({kind}) of {called(name)} becomes an index of two bytes a "
            "component."
        )
    elif "RABITQ" in kind:
        quantization = "binary"
        notes.append(f"{kind} of {called(name)} becomes an index of one bit a component.")
    elif "PQ" in kind or "PRQ" in kind:
        left_out.append(
            f"The product quantization ({kind}) of {called(name)}: pgvector has none; there is "
            "'half' and 'binary'."
        )
    if kind.startswith("HNSW"):
        m, ef = words.get("M"), words.get("efConstruction")
        if m is None or ef is None:
            notes.append(f"Milvus does not tell the figures of the graph of {called(name)}.")
            return HNSW(), quantization
        spec, clamping = clamped_hnsw(int(m), int(ef), name)
        notes += clamping
        return spec, quantization
    if "IVF" in kind and metric != "l1":
        return IVFFlat(lists=min(32_768, int(words.get("nlist") or 128))), quantization
    notes.append(f"The index {kind} of {called(name)} becomes an HNSW.")
    return HNSW(), quantization


def _payload_index(
    field: Mapping[str, Any],
    index: Mapping[str, Any] | None,
    indexes: list[SourceIndex],
    left_out: list[str],
) -> None:
    name, kind = field["name"], field["type"]
    if index is not None:
        found = "instant" if kind.name == "TIMESTAMPTZ" else _KINDS.get(kind)
        if found is None:
            left_out.append(
                f"The index {index.get('index_type')} on {name!r} ({kind.name}): an index here is "
                "on one value of a row; the containment index serves arrays and JSON."
            )
        else:
            indexes.append(SourceIndex(_path(name), found))
    if str((field.get("params") or {}).get("enable_match", "")).lower() == "true":
        indexes.append(SourceIndex(_path(name), "text"))
    if field.get("is_partition_key"):
        left_out.append(f"That {name!r} is the key of partitions: partition the table by it.")


def _path(name: str) -> str:
    return name.replace("\\", "\\\\").replace(".", "\\.")
