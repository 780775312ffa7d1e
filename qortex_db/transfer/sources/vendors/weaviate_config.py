"""What the schema of a Weaviate collection is here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from qortex_db.transfer.source import UNNAMED, SourceDescription, SourceIndex, SourceVector
from qortex_db.transfer.sources.vendors.indexes import called, clamped_hnsw

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qortex_db.filters import Kind
    from qortex_db.models.vector_spec import Metric, Quantization

_METRICS: Final[Mapping[str, Metric]] = {
    "cosine": "cosine",
    "dot": "inner_product",
    "l2-squared": "l2",
    "manhattan": "l1",
}
_RANGES: Final[Mapping[str, Kind]] = {"int": "integer", "number": "float", "date": "instant"}


def vectors_of(config: Any) -> dict[str, Any]:
    """The indexes of a collection's vectors by their names, without those of multivectors."""
    return {
        name: index
        for name, index in _all_vectors(config).items()
        if getattr(index, "multi_vector", None) is None
    }


def _all_vectors(config: Any) -> dict[str, Any]:
    if config.vector_config:
        return {name: each.vector_index_config for name, each in config.vector_config.items()}
    if config.vector_index_config is None:
        return {}
    return {UNNAMED: config.vector_index_config}


def described(config: Any, rows: int, dimensions: Mapping[str, int]) -> SourceDescription:
    """What comes over of a collection, and how.

    Args:
        dimensions: Of each vector, as far as some rows have it.
    """
    notes: list[str] = []
    left_out: list[str] = []
    there = vectors_of(config)
    left_out += [
        f"The multivectors {name!r}: a row here has one vector of a name."
        for name in _all_vectors(config)
        if name not in there
    ]
    vectors = [
        _vector(name, index, dimensions.get(name), notes, left_out) for name, index in there.items()
    ]
    left_out += [
        f"The references {each.name!r}: they are rows elsewhere, for a table of yours."
        for each in config.references or ()
    ]
    if config.multi_tenancy_config.enabled:
        left_out.append("The other tenants: each is an import of its own.")
    ttl = getattr(config, "object_ttl_config", None)
    if ttl is not None and getattr(ttl, "enabled", True):
        left_out.append("The time to live: delete old rows by a key of the payload.")
    if any(_vectorizer(each) for each in (config.vector_config or {}).values()):
        left_out.append("The vectorizers: rows and questions are embedded by a model of yours.")
    indexes = []
    for each in config.properties:
        kind = str(getattr(each.data_type, "value", each.data_type))
        if each.index_range_filters and kind in _RANGES:
            indexes.append(SourceIndex(each.name, _RANGES[kind]))
    notes.append(
        "Weaviate indexes every property unless told not to; here one index on the whole payload "
        "serves equality, ranges have the indexes that were asked for, and texts those that you "
        "declare."
    )
    if len(dimensions) < len(there):
        lacking = ", ".join(map(called, sorted(set(there) - set(dimensions))))
        notes.append(f"None of the first objects has {lacking}: its dimensions are not known.")
    return SourceDescription(rows, vectors, "uuid", indexes, left_out, notes)


def _vectorizer(vector: Any) -> bool:
    found = getattr(getattr(vector, "vectorizer", None), "vectorizer", None)
    return str(getattr(found, "value", found)) not in ("none", "None")


def _vector(
    name: str,
    index: Any,
    dimensions: int | None,
    notes: list[str],
    left_out: list[str],
) -> SourceVector:
    index = getattr(index, "hnsw", None) or index  # of a dynamic one
    found = getattr(index, "distance_metric", None)
    distance = str(getattr(found, "value", found or "cosine"))
    metric = _METRICS.get(distance)
    if metric is None:
        metric = "cosine"
        notes.append(f"The distance {distance} of {called(name)} is not here: cosine is taken.")
    if getattr(index, "max_connections", None) is None:
        notes.append(f"{called(name).capitalize()} has no graph: searches read the whole table.")
        return SourceVector(name, dimensions, metric)
    spec, clamping = clamped_hnsw(index.max_connections, index.ef_construction, name)
    notes += clamping
    quantization = _quantization(name, getattr(index, "quantizer", None), notes, left_out)
    return SourceVector(name, dimensions, metric, "full", quantization, spec)


def _quantization(
    name: str, quantizer: Any, notes: list[str], left_out: list[str]
) -> Quantization | None:
    if quantizer is None:
        return None
    kind = type(quantizer).__name__.strip("_").removesuffix("Config")
    if kind == "BQ" or (kind == "RQ" and quantizer.bits == 1):
        if kind == "RQ":
            notes.append(f"The RQ of {called(name)} is of one bit: its rotation is left out.")
        return "binary"
    if kind in ("SQ", "RQ"):
        notes.append(
            f"The quantization {kind} of {called(name)} (a byte) becomes an index of two bytes a "
            "component."
        )
        return "half"
    left_out.append(
        f"The quantization {kind} of {called(name)}: pgvector has none; there is 'half' and "
        "'binary'."
    )
    return None
