"""A search that goes on through all rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from qortex_db.filters import values_of
from qortex_db.repositories import validation
from qortex_db.repositories.validation import MAX_LIMIT
from qortex_db.repositories.vectors.rows.records import IdT
from qortex_db.repositories.vectors.search.index_settings import walk_of
from qortex_db.repositories.vectors.search.nearest import SearchForm
from qortex_db.repositories.vectors.search.statements import search_statements
from qortex_db.repositories.vectors.table import TableBound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from qortex_db.filters import Where
    from qortex_db.repositories.vectors.rows.payload_parts import WithPayload
    from qortex_db.repositories.vectors.rows.records import SearchHit
    from qortex_db.types import EmbeddingInput


class SearchStreams(TableBound[IdT]):
    """Searches without a limit."""

    async def stream_search(
        self,
        embedding: EmbeddingInput | str,
        *,
        batch_size: int = 1_000,
        where: Where | None = None,
        where_document: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        using: str | None = None,
        with_payload: WithPayload = True,
        with_embedding: bool = False,
    ) -> AsyncIterator[SearchHit[IdT]]:
        """All vectors, the most similar first, however many; none is left out or comes twice.

        Each page compares with every row, and begins after the last hit of the page before: what is
        written meanwhile is seen if it comes after that. What is not described here is as of
        :meth:`search`.

        Args:
            batch_size: Hits of a page, and of memory: 1 to `MAX_LIMIT`.

        Raises:
            InvalidInputError: An argument was refused.
            DimensionMismatchError: An embedding has another length than the column.
            LimitExceededError: The filter has more than a limit allows.
            EncryptionError: What is stored encrypted can't be decrypted.
            EmbeddingModelError: The table is searched by another model's embeddings.
        """
        vectors = self._vectors.using(using)
        size = validation.check_limit(batch_size, MAX_LIMIT, name="batch_size")
        floor = -math.inf if min_score is None else vectors.check_score(min_score)
        narrowed = await vectors.narrow(where, where_document)
        form = SearchForm(
            walk=walk_of(size),
            with_payload=vectors.body(with_payload),
            with_embedding=with_embedding,
        )
        params: dict[str, Any] = {
            "query": await vectors.encode_query(embedding),
            "candidates": size,
            **values_of(narrowed),
        }
        goes_on = False
        while True:
            statement = search_statements(vectors).onwards(narrowed, form, goes_on)
            rows = await vectors.rows(statement, params)
            hits = vectors.hits(await vectors.opened(rows, floor), floor, body=form.with_payload)
            for hit in hits:
                yield hit
            if len(rows) < size or len(hits) < len(rows):  # below the score, or without a distance
                return
            goes_on = True
            params |= {"after": rows[-1][0], "after_distance": rows[-1][1]}
