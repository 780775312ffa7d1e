"""Reads of a vectors table by key, by page and by count."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from qortex_db import checks, messages, types
from qortex_db.errors import InvalidInputError
from qortex_db.filters import values_of
from qortex_db.filters.columns import ColumnKey
from qortex_db.repositories import validation
from qortex_db.repositories.validation import MAX_LIMIT
from qortex_db.repositories.vectors.rows.records import (
    EmbeddingBatch,
    FacetCount,
    IdT,
    ScrollPage,
    VectorRecord,
)
from qortex_db.repositories.vectors.statements.filter_statements import Page
from qortex_db.repositories.vectors.statements.key_statements import ID, IDS
from qortex_db.repositories.vectors.table import TableBound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from qortex_db.filters import Where
    from qortex_db.repositories.vectors.rows.payload_parts import Body, WithPayload
    from qortex_db.repositories.vectors.rows.records import IdInput, PathInput
    from qortex_db.repositories.vectors.statements.filter_statements import Place
    from qortex_db.values.keys import KeyType

MAX_PAGE_SIZE: Final = 100_000
"""The most rows of one page of `stream`."""


class VectorReads(TableBound[IdT]):
    """What reads the vectors of a table without comparing them."""

    async def get(
        self, ids: Iterable[IdInput], *, with_payload: WithPayload = True
    ) -> dict[IdT, VectorRecord[IdT]]:
        """The stored vectors by id, embeddings as float32; who is missing is absent.

        Args:
            ids: Where keys are texts, an int or a UUID is `str(id)`, and comes back as that.
            with_payload: As of :meth:`search`.

        Raises:
            InvalidInputError: An id was refused.
            LimitExceededError: There are more ids than a limit allows.
            EncryptionError: What is stored encrypted can't be decrypted.
        """
        keys = validation.check_keys(ids, self._vectors.key, limits=self._vectors.limits)
        if not keys:
            return {}
        vectors = self._vectors
        if with_payload is not True:
            body = vectors.body(with_payload)
            rows = (await vectors.run(vectors.by_key.get_parts(body), {IDS: keys})).rows
            return {record.id: record for record in await self._records(rows, body=body)}
        if len(keys) == 1:
            rows = (await vectors.run(vectors.by_key.get_one, {ID: keys[0]})).rows
        else:
            rows = (await vectors.run(vectors.by_key.get, {IDS: keys})).rows
        return {record.id: record for record in await self._records(rows)}

    async def facet(
        self,
        path: PathInput,
        *,
        where: Where | None = None,
        where_document: Mapping[str, Any] | None = None,
        limit: int = 10,
    ) -> list[FacetCount]:
        """How many rows have each value at a path of the payload, or of a column of yours.

        The most frequent come first.

        What is not described here is as of :meth:`search`.

        Args:
            path: As in a filter, or a column by its name or attribute, `Model.price`. Of an array
                in a payload each element counts, once for each row.
            where: Count only these rows.
            limit: The most values, 1 to `MAX_LIMIT`.

        Raises:
            InvalidInputError: The path, the filter or the limit was refused.
            LimitExceededError: The filter has more than a limit allows.
        """
        vectors = self._vectors
        count = validation.check_limit(limit, MAX_LIMIT)
        narrowed = await vectors.narrow(where, where_document)
        place = vectors.place(path, "path")
        if isinstance(place, ColumnKey):
            statement = vectors.by_filter.facet_of_column(narrowed, place)
        else:
            statement = vectors.by_filter.facet(narrowed, place)
        rows = await vectors.rows(statement, {"hits": count, **values_of(narrowed)})
        return [FacetCount(*row) for row in rows]

    async def count(
        self, *, where: Where | None = None, where_document: Mapping[str, Any] | None = None
    ) -> int:
        """How many rows there are, those without an embedding too: a scan, not for every request.

        What is not described here is as of :meth:`search`.

        Raises:
            InvalidInputError: The filter was refused.
            LimitExceededError: The filter has more than a limit allows.
        """
        narrowed = await self._vectors.narrow(where, where_document)
        statement = self._vectors.by_filter.count(narrowed)
        return int((await self._vectors.rows(statement, values_of(narrowed)))[0][0])

    async def scroll(
        self,
        *,
        limit: int = 100,
        after: str | None = None,
        order_by: PathInput | None = None,
        descending: bool = False,
        where: Where | None = None,
        where_document: Mapping[str, Any] | None = None,
        with_payload: WithPayload = True,
        with_embedding: bool = False,
    ) -> ScrollPage[IdT]:
        """A page of vectors in the order of their ids, or of a field or column and then of ids.

        What is not described here is as of :meth:`search`.

        Args:
            limit: 1 to `MAX_LIMIT`.
            after: The `next` of the page before; only with the same `order_by` and `descending`.
            order_by: A path into the payload, as in a filter, or a column by its name or attribute;
                rows without it are left out. An
                index of kind containment does not help here: the page costs a scan.
            descending: The greatest first, ids too.
            with_embedding: Return embeddings too; without, they are empty.

        Raises:
            InvalidInputError: after is no `next` of a page in this order.
            LimitExceededError: The filter has more than a limit allows.
            EncryptionError: What is stored encrypted can't be decrypted.
        """
        vectors = self._vectors
        count = validation.check_limit(limit, MAX_LIMIT)
        place: Place = () if order_by is None else vectors.place(order_by, "order_by")
        cursor = {} if after is None else _read_cursor(after, vectors.key, place)
        narrowed = await vectors.narrow(where, where_document)
        body = vectors.body(with_payload)
        page = Page(
            place,
            goes_on=after is not None,
            descending=descending,
            with_embedding=with_embedding,
            body=body,
        )
        params = {"hits": count, **cursor, **values_of(narrowed)}
        rows = await vectors.rows(vectors.by_filter.page(narrowed, page), params)
        last = None
        if len(rows) == count:
            last = json.dumps([rows[-1][0], rows[-1][-1] if place else None], default=str)
        records = await self._records(rows, with_embedding=with_embedding, body=body)
        return ScrollPage(records, last)

    async def stream(
        self,
        *,
        batch_size: int = 500,
        where: Where | None = None,
        where_document: Mapping[str, Any] | None = None,
        with_payload: WithPayload = True,
        with_embedding: bool = True,
    ) -> AsyncIterator[VectorRecord[IdT]]:
        """All vectors in the order of their ids, page by page by the last id seen.

        What is not described here is as of :meth:`search`.

        Args:
            batch_size: Rows of a page, and of memory.
            with_embedding: Return embeddings too; without, they are empty.

        Raises:
            InvalidInputError: An argument was refused.
            LimitExceededError: The filter has more than a limit allows.
            EncryptionError: What is stored encrypted can't be decrypted.
        """
        size = validation.check_limit(batch_size, MAX_PAGE_SIZE, name="batch_size")
        narrowed = await self._vectors.narrow(where, where_document)
        params: dict[str, Any] = {"hits": size, **values_of(narrowed)}
        body = self._vectors.body(with_payload)
        page = Page(with_embedding=with_embedding, body=body)
        while True:
            statement = self._vectors.by_filter.page(narrowed, page)
            rows = (await self._vectors.run(statement, params)).rows
            for record in await self._records(rows, with_embedding=with_embedding, body=body):
                yield record
            if len(rows) < size:
                return
            page = Page(goes_on=True, with_embedding=with_embedding, body=body)
            params["after"] = rows[-1][0]

    async def stream_batches(
        self,
        *,
        batch_size: int = 5_000,
        where: Where | None = None,
        where_document: Mapping[str, Any] | None = None,
        using: str | None = None,
    ) -> AsyncIterator[EmbeddingBatch[IdT]]:
        """Ids and embeddings alone, in the order of the ids: a list and a matrix for each batch.

        For what computes with many vectors, at a fraction of what their records cost. Rows without
        an embedding are left out. What is not described here is as of :meth:`search`.

        Args:
            batch_size: Rows of a matrix.

        Raises:
            InvalidInputError: The vectors are sparse, or a batch has several lengths.
            LimitExceededError: The filter has more than a limit allows.
        """
        vectors = self._vectors.using(using)
        size = validation.check_limit(batch_size, MAX_PAGE_SIZE, name="batch_size")
        if isinstance(vectors.vector.type, types.SparseEmbedding):
            raise InvalidInputError("Sparse vectors are no matrix; stream() gives them one by one.")
        narrowed = await vectors.narrow(where, where_document)
        params: dict[str, Any] = {"hits": size, **values_of(narrowed)}
        column, goes_on = vectors.vector.column, False
        while True:
            statement = vectors.by_filter.embeddings(narrowed, column, goes_on)
            rows = (await vectors.run(statement, params)).rows
            if rows:
                ids, sent = map(list, zip(*rows, strict=True))
                if len(set(map(len, sent))) > 1:
                    which = f"from id {messages.shown(ids[0])} to {messages.shown(ids[-1])}"
                    raise InvalidInputError(
                        f"The vectors {which} have several lengths, and are no matrix; stream() "
                        "gives them one by one."
                    )
                read = [vectors.key.read(key) for key in ids] if vectors.key.is_composite else ids
                yield EmbeddingBatch(read, types.matrix_from_binary(sent))
            if len(rows) < size:
                return
            goes_on, params["after"] = True, rows[-1][0]

    async def _records(
        self, rows: Sequence[Sequence[Any]], *, with_embedding: bool = True, body: Body = True
    ) -> list[VectorRecord[IdT]]:
        """Rows of records, with what is encrypted in clear."""
        shape = self._vectors.shape
        read = await self._vectors.opened(shape.read(rows, with_embedding=with_embedding))
        return [shape.record(row, with_embedding=with_embedding, body=body) for row in read]


def _read_cursor(cursor: object, kind: KeyType, place: Place) -> dict[str, Any]:
    try:
        key, value = json.loads(cursor)  # type: ignore[arg-type]
        params = {"after": kind.check_cursor(key)}
        if place:
            if not isinstance(place, ColumnKey):
                json.loads(value, parse_constant=_no_json)
            params["after_value"] = checks.check_text(value, name="after")
    except (TypeError, ValueError, RecursionError):  # they quote it, and may be nobody's context
        params = {}
    if not params:
        raise InvalidInputError("after is no `next` of a page in this order.")
    return params


def _no_json(name: str) -> None:
    raise ValueError(name)  # NaN, which Python's reader takes
