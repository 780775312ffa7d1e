"""Which parts of a flat row are its id and its vectors, in files of strangers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from qortex_db.errors import InvalidInputError
from qortex_db.messages import shown
from qortex_db.transfer.source import UNNAMED, SourceRow, SparseComponents

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_IDS: Final = ("id", "_id", "uuid", "key", "doc_id", "chunk_id")
_VECTORS: Final = ("embedding", "vector", "values", "vec", "embeddings")
_ENDS: Final = ("_embedding", "_vector", "_vec")


@dataclass(frozen=True, slots=True)
class RowParts:
    """The names of a row's id and vectors; everything else is its payload.

    Attributes:
        id: None where rows have none: they are counted from 0 then.
        vectors: Which, the main one first.
        document: Where it is told, and not left to the plan.
    """

    id: str | None
    vectors: Sequence[str]
    document: str | None = None

    @classmethod
    def found(
        cls,
        names: Collection[str],
        *,
        id: str | None = None,  # noqa: A002 - the column's name
        embedding: str | None = None,
        document: str | None = None,
        where: str,
    ) -> RowParts:
        """Those that are told, and else those that have a usual name.

        Args:
            embedding: One or several, with commas.
            where: What an error calls the rows.

        Raises:
            InvalidInputError: What is told is not there, or nothing is called as a vector is.
        """
        told = [] if embedding is None else [part.strip() for part in embedding.split(",")]
        for name in (*told, *(each for each in (id, document) if each)):
            if name not in names:
                raise InvalidInputError(
                    f"{where} has no {shown(name)}: it has {', '.join(map(shown, sorted(names)))}."
                )
        if not told:
            usual = [name for name in _VECTORS if name in names]
            told = usual[:1] + [name for name in names if name.endswith(_ENDS)]
        if not told:
            raise InvalidInputError(
                f"Nothing in {where} is called as an embedding is: say which by embedding=, of "
                f"{', '.join(map(shown, sorted(names)))}."
            )
        key = id or next((name for name in _IDS if name in names), None)
        return cls(key, told, document)

    @property
    def names(self) -> dict[str, str]:
        """What its vectors are called in the source's description, by their names in a row."""
        return {name: UNNAMED if at == 0 else name for at, name in enumerate(self.vectors)}

    def row(self, given: Mapping[str, Any], number: int) -> SourceRow:
        """A row of these parts.

        Raises:
            InvalidInputError: It has no id, or a part is of another kind.
        """
        payload = dict(given)
        key = number if self.id is None else payload.pop(self.id, None)
        if isinstance(key, bool) or not isinstance(key, str | int | UUID):
            raise InvalidInputError(f"{self.id} has to be a text, a whole number or a UUID.")
        document = None if self.document is None else payload.pop(self.document, None)
        if document is not None and not isinstance(document, str):
            raise InvalidInputError(f"{self.document} has to be a text.")
        vectors = {
            called: _vector(payload.pop(name, None), name) for name, called in self.names.items()
        }
        return SourceRow(key, vectors, payload, document)


def _vector(given: Any, name: str) -> Any:
    if isinstance(given, dict):
        indices, values = given.get("indices"), given.get("values")
        if not (isinstance(indices, list) and isinstance(values, list)):
            raise InvalidInputError(f"{name} has to have indices and values, a list each.")
        if not all(type(each) is int for each in indices) or len(set(indices)) < len(indices):
            raise InvalidInputError(f"{name} has to have whole numbers as indices, each once.")
        return SparseComponents(indices, values)
    if given is not None and (isinstance(given, str) or not isinstance(given, Sequence)):
        raise InvalidInputError(f"{name} has to be a list of numbers.")
    return given
