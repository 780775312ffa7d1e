"""What records say, column by column; what several of them say of one id is put together.

No object is made for a row: each would have the collector look through a caller's lists of floats.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from qortex_db import messages
from qortex_db.errors import InvalidInputError
from qortex_db.repositories.vectors.rows.records import RecordInput, VectorRecord
from qortex_db.repositories.vectors.rows.written_columns import MISSING, named_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qortex_db.repositories.vectors.rows.written_columns import RecordPart, WrittenColumn
    from qortex_db.values.keys import KeyType

_FIELDS: Final = frozenset({"id", "embedding", "payload", "document", "vectors", "attributes"})


class RowNumber(int):
    """In the place of a key that the server will make: a record's place among the others."""


def row_name(number: int, key: object) -> str:
    """What a refusal calls a row."""
    if type(key) is RowNumber:
        return f"row {number}"
    return f"row {number} (id {messages.shown(key if isinstance(key, str) else str(key))})"


class RecordColumns:
    """The fields of records in their order; what a record leaves out is `MISSING`.

    Where the server makes the keys (`keys_are_made`), no record has one.

    Attributes:
        further: The columns beside id and embedding that some record gives.
    """

    def __init__(
        self,
        records: Iterable[RecordInput],
        written: Mapping[str, WrittenColumn],
        key_type: KeyType,
        first_row: int,
        *,
        lacks_embedding: bool = False,
        keys_are_made: bool = False,
    ) -> None:
        needed = [] if keys_are_made else ["id"]
        needed += [] if lacks_embedding else ["embedding"]
        self.ids: list[Any] = []
        self.embeddings: list[Any] = []
        payloads: list[Any] = []
        documents: list[Any] = []
        named: list[tuple[int, RecordPart, Any]] = []
        for number, item in enumerate(records):
            if isinstance(item, VectorRecord):
                key, embedding = item.id, item.embedding
                payloads.append(item.payload)
                documents.append(item.document)
                vectors, attributes = item.vectors, item.attributes
            else:
                _check_mapping(item, f"row {first_row + number}", needed)
                key, embedding = item.get("id"), item.get("embedding")
                payloads.append(item.get("payload"))
                documents.append(item.get("document"))
                vectors, attributes = item.get("vectors"), item.get("attributes")
            self.ids.append(key)
            self.embeddings.append(MISSING if embedding is None else embedding)
            if vectors is not None:
                named.append((number, "vectors", vectors))
            if attributes is not None:
                named.append((number, "attributes", attributes))
        if keys_are_made:
            self.ids = list(map(RowNumber, range(len(self.ids))))
        elif not key_type.all_plain(self.ids):
            self.ids = _checked(self.ids, key_type, first_row)
        count = len(self.ids)
        self.further: dict[str, list[Any]] = defaultdict(lambda: [MISSING] * count)
        self._add_own(written, payloads, documents)
        for name, one in written.items():
            if one.is_always_written:
                self.further[name] = [MISSING] * count
        for number, part, values in named:
            self._add_named(written, number, part, values, first_row)

    def _add_own(
        self, written: Mapping[str, WrittenColumn], payloads: list[Any], documents: list[Any]
    ) -> None:
        for name, values in (("payload", payloads), ("document", documents)):
            if any(value is not None for value in values):  # no comparison: arrays give arrays
                if name not in written:
                    raise InvalidInputError(f"The table has no column {name}.")
                self.further[name] = [MISSING if value is None else value for value in values]

    def _add_named(
        self,
        written: Mapping[str, WrittenColumn],
        number: int,
        part: RecordPart,
        values: object,
        first_row: int,
    ) -> None:
        row = row_name(first_row + number, self.ids[number])
        if not isinstance(values, Mapping):
            kind = type(values).__name__
            raise InvalidInputError(
                f"{part} of row {first_row + number} is a {kind}; pass a dict, in {row}."
            )
        for name, value in named_values(written, part, values, f"{part} of {row}"):
            self.further[name][number] = value


class Told:
    """What is said of one column, in the order of the ids.

    Attributes:
        values: Of each id the last that was given, or `MISSING`.
        places: Where in the records they were.
        outdone: The places of those that a later record replaces.
    """

    __slots__ = ("outdone", "places", "values")

    def __init__(
        self, values: Sequence[Any], places: list[int], repeated: Mapping[int, list[int]]
    ) -> None:
        self.outdone: list[int] = []
        if repeated:
            places = list(places)
            for at, candidates in repeated.items():
                given = [place for place in candidates if values[place] is not MISSING]
                if given:
                    *before, places[at] = given
                    self.outdone += before
        self.places = places
        self.values = [values[place] for place in places]


def is_missing(values: Iterable[Any]) -> bool:
    """Whether some record says nothing."""
    return type(MISSING) in set(map(type, values))  # much faster than one by one


def _checked(ids: Sequence[object], key_type: KeyType, first_row: int) -> list[Any]:
    return [
        key_type.check(key, name=f"id of row {number}") for number, key in enumerate(ids, first_row)
    ]


def _check_mapping(item: object, name: str, needed: Sequence[str]) -> None:
    if type(item) is not dict and not isinstance(item, Mapping):
        raise InvalidInputError(
            f"{name} is a {type(item).__name__}; pass a VectorRecord or a mapping with its fields."
        )
    if not item.keys() <= _FIELDS:
        unknown = sorted(map(str, item.keys() - _FIELDS))
        raise InvalidInputError(
            f"{name} has unknown fields {unknown}; a record has {', '.join(sorted(_FIELDS))}."
        )
    for field in needed:
        if field not in item:
            hint = " insert() takes records without, where the server makes keys."
            raise InvalidInputError(f"{name} lacks {field!r}.{hint if field == 'id' else ''}")
