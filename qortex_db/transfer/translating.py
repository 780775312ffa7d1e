"""A source's row as a record of a collection: the mapping that docs/transfer/imports.md tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qortex_db.errors import InvalidInputError
from qortex_db.models.vector_spec import DEFAULT_VECTOR
from qortex_db.repositories.vectors.rows.records import VectorRecord
from qortex_db.transfer.source import SparseComponents
from qortex_db.types import SparseVector, fold_sparse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qortex_db.models.vector_spec import VectorSpec
    from qortex_db.transfer.planning import ImportPlan
    from qortex_db.transfer.source import SourceRow


class Translator:
    """Makes records of rows.

    Args:
        plan: What goes where.
        specs: The vectors of the collection, by their names there.
    """

    def __init__(self, plan: ImportPlan, specs: Mapping[str, VectorSpec]) -> None:
        self._plan = plan
        self._specs = specs

    def record(self, row: SourceRow) -> VectorRecord[Any]:
        """The record.

        Raises:
            InvalidInputError: A value is of a kind that has no place here.
        """
        payload = dict(row.payload)
        document = row.document
        if self._plan.document is not None and document is None:
            text = payload.get(self._plan.document)
            if isinstance(text, str):  # what is no text stays where it is
                document = text
                del payload[self._plan.document]
        if self._plan.payload is not None:
            inner = payload.pop(self._plan.payload, None)
            if "payload" in self._plan.guessed and any(
                each is not None for each in payload.values()
            ):
                raise InvalidInputError(
                    f"It has keys beside {self._plan.payload}, which the first rows have not, and "
                    f"they would be lost: say what becomes the payload, {self._plan.payload} or "
                    "all (--payload)."
                )
            if inner is None:
                inner = {}
            if not isinstance(inner, dict):
                raise InvalidInputError(f"{self._plan.payload} has to be an object.")
            payload = inner
        vectors = {
            target: self.vector(target, value)
            for name, target in self._plan.vectors.items()
            if (value := row.vectors.get(name)) is not None
        }
        embedding = vectors.pop(DEFAULT_VECTOR, None)
        return VectorRecord(row.id, embedding, payload, document, vectors or None)

    def vector(self, target: str, value: Any) -> Any:
        """A vector, of a row or to search by, as the collection has it."""
        if not isinstance(value, SparseComponents):
            return value
        if len(value.indices) != len(value.values):
            raise InvalidInputError(f"{target} has not as many values as indices.")
        size = self._specs[target].dimensions
        components = dict(zip(value.indices, value.values, strict=True))
        if size is None:
            size = max(components, default=0) + 1
        return fold_sparse(components, size)


def is_same_vector(ours: Any, theirs: Any, *, is_half: bool) -> bool:
    """Whether a stored vector is what was given, to the last bit of what its column holds."""
    if ours is None or theirs is None:
        return ours is theirs
    if isinstance(theirs, SparseVector):
        return bool(ours == theirs)
    kind = np.float16 if is_half else np.float32
    return np.array_equal(np.asarray(ours, kind), np.asarray(theirs, kind))
