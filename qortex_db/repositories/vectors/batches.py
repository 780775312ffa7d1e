"""Records in key order, checked and encoded part by part while those before are on their way."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from qortex_db.errors import InvalidInputError
from qortex_db.models.vector_spec import DEFAULT_VECTOR
from qortex_db.repositories.vectors.rows.record_columns import (
    RecordColumns,
    Told,
    is_missing,
    row_name,
)
from qortex_db.repositories.vectors.rows.written_columns import MISSING
from qortex_db.values.plain_json import is_large

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from qortex_db.repositories.vectors.rows.embedding_parts import EmbeddingColumn
    from qortex_db.repositories.vectors.rows.records import RecordInput
    from qortex_db.repositories.vectors.rows.written_columns import WrittenColumn
    from qortex_db.repositories.vectors.statements.key_statements import GivenColumns
    from qortex_db.values.keys import KeyType

PART_BYTES: Final = 2**16
"""The vectors of one statement: several fit into a socket's buffer, so that the next are made
while the server works on those before."""
PART_ROWS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Part:
    """Checked rows, column by column.

    Attributes:
        embeddings: None where a row gets none.
        values: Of the columns that the batch gives, in their order.
        given: By the names of those that some records give, the ids that do.
    """

    ids: list[Any]
    embeddings: list[bytes | None]
    values: list[list[Any]]
    given: dict[str, dict[str, int]]


class Batch:
    """Records in key order, one of each id; their shape and ids are checked at once.

    What several records say of one id is what they would say one after the other: of each field
    the last that gives it.

    Attributes:
        ids: Distinct, in key order.
        given: The columns given beside the id, and whether by all records or by some; the embedding
            only if by some.

    Args:
        written: The columns that the table has beside id and vector.
        key: What its keys are.
        keys_are_made: By the server: then the ids are the records' numbers.
    """

    def __init__(
        self,
        records: Iterable[RecordInput],
        column: EmbeddingColumn,
        written: Mapping[str, WrittenColumn],
        key: KeyType,
        *,
        first_row: int = 0,
        keys_are_made: bool = False,
    ) -> None:
        said = RecordColumns(
            records,
            written,
            key,
            first_row,
            lacks_embedding=column.may_lack,
            keys_are_made=keys_are_made,
        )
        self._column = column
        self._first_row = first_row
        last = dict(zip(said.ids, itertools.count()))
        self.ids = sorted(last, key=key.order if key.is_composite else None)
        places = [last[key] for key in self.ids]
        repeated = _repeated(said.ids, self.ids) if len(last) < len(said.ids) else {}
        self._embeddings = Told(said.embeddings, places, repeated)
        self._columns = [
            (written[name], Told(values, places, repeated))
            for name, values in sorted(said.further.items())
        ]
        self.given: GivenColumns = tuple(
            (one.column.key, "some" if is_missing(told.values) else "all")
            for one, told in self._columns
        )
        if is_missing(self._embeddings.values):
            self.given = (*self.given, (DEFAULT_VECTOR, "some"))
        told_of = {one.column.key: told for one, told in self._columns}
        told_of[DEFAULT_VECTOR] = self._embeddings
        self._given_by_some = [
            (name, told_of[name].values) for name, mode in self.given if mode == "some"
        ]
        if repeated:
            self._check_outdone(said)
        bytes_a_row = 4 * (column.dimensions or _length(self._embeddings.values))
        self._size = max(1, min(PART_ROWS, PART_BYTES // bytes_a_row))

    @property
    def is_large(self) -> bool:
        """Whether a value of it takes so long that an event loop would be held up."""
        return any(
            is_large(value)
            for one, told in self._columns
            if one.part != "vectors"
            for value in told.values
        )

    @property
    def is_one_part(self) -> bool:
        """Whether one statement takes it all."""
        return len(self.ids) <= self._size

    def parts(self) -> Iterator[Part]:
        """The rows by the statement.

        Raises:
            InvalidInputError: A row was refused, named by its number and id.
        """
        for start in range(0, len(self.ids), self._size):
            part = slice(start, start + self._size)
            ids, told = self.ids[part], self._embeddings
            embeddings = self._column.encoded(told.values[part])
            if embeddings is None:
                embeddings = [
                    self._column.checked(value, f"embedding of {row_name(row, key)}")
                    for value, row, key in self._named(told, part)
                ]
            columns = [self._values(one, told, part) for one, told in self._columns]
            given = {name: _given(ids, values[part]) for name, values in self._given_by_some}
            yield Part(ids, embeddings, columns, given)

    def _named(self, told: Told, part: slice) -> Iterator[tuple[Any, int, object]]:
        for value, place, key in zip(
            told.values[part], told.places[part], self.ids[part], strict=True
        ):
            yield value, self._first_row + place, key

    def _values(self, written: WrittenColumn, told: Told, part: slice) -> list[Any]:
        values = told.values[part]
        if written.make is not None:  # what the model makes is sent as any value is
            values = [written.make() if value is MISSING else value for value in values]
        what = _what(written)
        try:
            return [None if value is MISSING else written.sent(value, what) for value in values]
        except InvalidInputError:
            pass  # said anew with its row and id, whose names would cost more than the check
        named = zip(values, self._named(told, part), strict=True)
        return [
            None if value is MISSING else _sent(written, value, row, key)
            for value, (_, row, key) in named
        ]

    def _check_outdone(self, said: RecordColumns) -> None:
        """What a later record replaces: by itself, it would have been refused as well."""
        for place in self._embeddings.outdone:
            name = f"embedding of {row_name(self._first_row + place, said.ids[place])}"
            self._column.checked(said.embeddings[place], name)
        for one, told in self._columns:
            values = said.further[one.column.key]
            for place in told.outdone:
                _sent(one, values[place], self._first_row + place, said.ids[place])


def _repeated(ids: Sequence[Any], keys: Sequence[Any]) -> dict[int, list[int]]:
    """By the place of a key that came several times, its places among the ids."""
    places: defaultdict[Any, list[int]] = defaultdict(list)
    for place, key in enumerate(ids):
        places[key].append(place)
    return {at: places[key] for at, key in enumerate(keys) if len(places[key]) > 1}


def _what(written: WrittenColumn) -> str:
    name = written.column.name
    return f"{written.part}[{name!r}]" if written.part in ("vectors", "attributes") else name


def _sent(written: WrittenColumn, value: Any, row: int, key: object) -> Any:
    return written.sent(value, f"{_what(written)} of {row_name(row, key)}")


def _given(ids: Sequence[Any], values: Sequence[Any]) -> dict[str, int]:
    return {str(key): 1 for key, value in zip(ids, values, strict=True) if value is not MISSING}


def _length(embeddings: Sequence[Any]) -> int:
    """About how long they are, where the column takes any; what is no vector is refused later."""
    try:
        return max(1, len(next(value for value in embeddings if value is not MISSING)))
    except Exception:  # noqa: BLE001 - whatever is in there
        return 1
