"""How pydantic, and so FastAPI, sees what it has no schema of its own for: arrays, and sequences.

pydantic asks the markers here, by `Annotated`, when it makes a schema; records know nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from qortex_db.types import SparseVector

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema
    from pydantic_core.core_schema import SerializationInfo

SequenceT = TypeVar("SequenceT", bound=Sequence[Any])

SPARSE_KEYS: Final = {"dimensions", "indices", "values"}
"""What a sparse vector is in JSON."""


class _EmbeddingMarker:
    """Floats: in JSON a list of them, or of lists, in Python an array of float32."""

    def __init__(self, *, is_matrix: bool = False) -> None:
        self._is_matrix = is_matrix

    def __get_pydantic_core_schema__(self, _: object, __: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema  # noqa: PLC0415 - only pydantic's users need it

        floats = core_schema.list_schema(core_schema.float_schema())
        if self._is_matrix:
            floats = core_schema.list_schema(floats)
        return core_schema.no_info_wrap_validator_function(
            _as_array,
            floats if self._is_matrix else core_schema.nullable_schema(floats),
            serialization=core_schema.plain_serializer_function_ser_schema(_sent, info_arg=True),
        )


class _AnyMarker:
    """Whatever the annotation says, with vectors among it: those are lists in JSON."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        from pydantic_core import core_schema  # noqa: PLC0415 - only pydantic's users need it

        return core_schema.no_info_after_validator_function(
            _with_sparse,
            handler(source),
            serialization=core_schema.plain_serializer_function_ser_schema(_sent, info_arg=True),
        )


EMBEDDING: Final = _EmbeddingMarker()
"""Marks a field that holds an embedding."""
MATRIX: Final = _EmbeddingMarker(is_matrix=True)
"""Marks one that holds several, row by row."""
WITH_VECTORS: Final = _AnyMarker()
"""Marks a field that may hold vectors, or scalars of numpy's."""


def sequence_schema(
    items: CoreSchema, kind: type[SequenceT], make: Callable[[list[Any]], SequenceT]
) -> CoreSchema:
    """A sequence class of ours: in JSON an array.

    Args:
        items: The schema of an item.
        kind: The class.
        make: Makes one of a list.
    """
    from pydantic_core import core_schema  # noqa: PLC0415 - only pydantic's users need it

    listed = core_schema.list_schema(items)
    return core_schema.no_info_wrap_validator_function(
        lambda value, read: value if isinstance(value, kind) else make(read(value)),
        listed,
        serialization=core_schema.wrap_serializer_function_ser_schema(
            lambda value, write: write(list(value)), schema=listed
        ),
    )


def _as_array(value: Any, read: Callable[[Any], Any]) -> Any:
    if isinstance(value, (np.ndarray, SparseVector)):
        return value
    if isinstance(value, Mapping):
        return sparse_of(value)
    floats = read(value)
    return None if floats is None else np.array(floats, dtype=np.float32)


def _sent(value: Any, info: SerializationInfo) -> Any:
    return in_json(value) if info.mode_is_json() else value


def in_json(value: Any) -> Any:
    """A value with its vectors, and scalars of numpy's, as pydantic can write them."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, SparseVector):
        return {
            "dimensions": value.dimensions(),
            "indices": list(value.indices()),
            "values": list(value.values()),
        }
    if isinstance(value, Mapping):
        return {key: in_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [in_json(item) for item in value]
    return value


def _with_sparse(value: Any) -> Any:
    """The sparse vectors of a mapping, which come as JSON has them."""
    if not isinstance(value, Mapping):
        return value
    return {
        key: sparse_of(item) if isinstance(item, Mapping) and item.keys() == SPARSE_KEYS else item
        for key, item in value.items()
    }


def sparse_of(item: Mapping[str, Any]) -> SparseVector:
    try:
        pairs = zip(map(int, item["indices"]), map(float, item["values"]), strict=True)
        return SparseVector(dict(pairs), int(item["dimensions"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError("This is no sparse vector: dimensions, indices and values.") from None
