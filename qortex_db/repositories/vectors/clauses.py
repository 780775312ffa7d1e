"""Expressions over the host's own table, for statements that the host writes itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, true
from sqlalchemy import column as sql_column

from qortex_db import checks
from qortex_db.errors import InvalidInputError
from qortex_db.filters import read_filter, with_document
from qortex_db.filters.parameters import with_values
from qortex_db.mirrors import moved, original_of
from qortex_db.repositories.vectors.rows.records import IdT
from qortex_db.repositories.vectors.table import TableBound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import ColumnElement

    from qortex_db.filters import Where
    from qortex_db.types import EmbeddingInput


class VectorClauses(TableBound[IdT]):
    """What a table's filters and vectors are in SQLAlchemy's expressions; nothing is sent."""

    def clause(
        self, where: Where | None = None, *, where_document: Mapping[str, Any] | None = None
    ) -> ColumnElement[bool]:
        """A filter as an expression over the model, with its values; it carries the namespace.

        What is not described here is as of :meth:`search`.

        Args:
            where: None for all rows of the collection, or of the namespace.

        Raises:
            InvalidInputError: The filter cannot be read.
            LimitExceededError: The filter has more than a limit allows.
        """
        vectors = self._vectors
        conditions = [with_values(each, vectors.scope_params) for each in vectors.scope.clauses]
        whole = with_document(where, where_document)
        if whole is not None:
            narrowed = read_filter(whole, vectors.table, vectors.limits, vectors.shape.own)
            conditions.append(with_values(narrowed.clause, narrowed.params))
        clause: ColumnElement[bool] = and_(true(), *conditions)
        return moved(clause, vectors.table, original_of(vectors.table))

    def distance(
        self, embedding: EmbeddingInput, *, using: str | None = None, approximate: bool = False
    ) -> ColumnElement[float]:
        """How far a row's vector is from an embedding, by the metric: to select, and to order by.

        What is not described here is as of :meth:`search`. NULL of a row without a vector.

        Args:
            approximate: By what a quantized index holds, so that ordering by it uses that index; of
                single bits it is how many differ. Without quantization it is the same.

        Raises:
            InvalidInputError: The embedding was refused.
            DimensionMismatchError: An embedding has another length than the column.
            EmbeddingModelError: The table is searched by another model's embeddings.
        """
        checks.check_flag(approximate, name="approximate")
        vectors = self._vectors.using(using)
        named = vectors.named(embedding)
        vectors.encode_for(named, vectors.vector.dimensions)  # which checks it
        value = vectors.read_query(named)
        query: ColumnElement[Any] = bindparam(None, value, vectors.vector.type, unique=True)
        column: ColumnElement[Any] = vectors.table.c[vectors.vector.column]
        original = original_of(vectors.table)
        if column.name not in {each.name for each in original.columns}:  # of a changeover alone
            column = sql_column(column.name, column.type, _selectable=original)
        compare = vectors.vector.index_distance if approximate else vectors.vector.distance
        return moved(compare(column, query), vectors.table, original_of(vectors.table))

    def score(
        self, embedding: EmbeddingInput, *, using: str | None = None, approximate: bool = False
    ) -> ColumnElement[float]:
        """The score that a hit would have, higher is better; order by :meth:`distance`.

        What is not described here is as of :meth:`search` and :meth:`distance`.

        Raises:
            InvalidInputError: approximate is asked of an index of single bits, which give no score.
            DimensionMismatchError: An embedding has another length than the column.
            EmbeddingModelError: The table is searched by another model's embeddings.
        """
        distance = self.distance(embedding, using=using, approximate=approximate)
        vectors = self._vectors.using(using)
        if approximate and vectors.vector.quantization == "binary":
            raise InvalidInputError("Single bits give no score: leave approximate out.")
        return vectors.zero_distance_score - distance
