"""Searches that fuse several queries, each one statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from qortex_db.errors import InvalidInputError
from qortex_db.repositories import validation
from qortex_db.repositories.approach import approach
from qortex_db.repositories.fused_statements import hybrid, multi
from qortex_db.repositories.records import MAX_LIMIT, EmbeddingInput, SearchHits
from qortex_db.search import check_query, with_document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qortex_db.repositories.vector_table import VectorTable
    from qortex_db.search import Where

MAX_QUERIES: Final = 32
"""The most embeddings of one `multi_search`."""

_BRANCH = 100


class FusedSearches:
    """Searches of a table by several queries at once."""

    _vectors: VectorTable

    async def hybrid_search(
        self,
        embedding: EmbeddingInput,
        text: str,
        *,
        limit: int = 10,
        where: Where | None = None,
        where_document: Mapping[str, Any] | None = None,
        alpha: float | None = None,
        k: int = 60,
        branch_limit: int | None = None,
        using: str | None = None,
        exact: bool = False,
        with_payload: bool = True,
        with_embedding: bool = False,
    ) -> SearchHits:
        """The best by meaning and by words together, each branch under the same filter.

        Args:
            embedding: As of `search`.
            text: Words, "phrases", -exclusions and `or`, as `websearch_to_tsquery` reads them; at
                most 1,000 characters.
            limit: 1 to `MAX_LIMIT`.
            where: As of `search`.
            where_document: As of `search`.
            alpha: None fuses by reciprocal rank, and a score is the sum of 1 / (k + rank). A number
                from 0 (words alone) to 1 (meaning alone) is the weight of the branches' scores,
                each scaled from 0 to 1.
            k: How flat reciprocal ranks are, 1 to 10,000.
            branch_limit: How many each branch brings in; by default 100, or the limit if larger.
            using: As of `search`.
            exact: Compare the embedding with every row.
            with_payload: As of `search`.
            with_embedding: As of `search`.

        Raises:
            InvalidInputError: An argument was refused, or the table has no column `document`.
        """
        vectors = self._vectors.using(using)
        count = validation.check_limit(limit, MAX_LIMIT)
        if "document" not in vectors.table.c:
            raise InvalidInputError(f"The table {vectors.table.name} has no column document.")
        where = with_document(where, where_document)
        branch = max(_BRANCH, count)
        if branch_limit is not None:
            branch = validation.check_limit(branch_limit, MAX_LIMIT, name="branch_limit")
        params: dict[str, Any] = {
            "query": vectors.encode(embedding, await vectors.facts()),
            "text": check_query(text, "text"),
            "candidates": branch,
            "hits": count,
        }
        if alpha is None:
            params["k"] = float(validation.check_limit(k, MAX_LIMIT, name="k"))
        else:
            weight = validation.check_number(alpha, name="alpha", low=0, high=1)
            params |= {"dense_weight": weight, "text_weight": 1 - weight}
        narrowed, form = approach(
            vectors,
            params,
            where,
            exact=exact,
            with_payload=with_payload,
            with_embedding=with_embedding,
        )
        fusion: Literal["ranks", "scores"] = "ranks" if alpha is None else "scores"
        statement = hybrid(vectors.searches.rows, narrowed, form, fusion)
        rows = await vectors.rows(statement, params)
        return SearchHits(
            (vectors.shape.hit(row, row[1]) for row in rows), requested=count, complete=True
        )

    async def multi_search(
        self,
        embeddings: Sequence[EmbeddingInput],
        *,
        limit: int = 10,
        where: Where | None = None,
        using: str | None = None,
        exact: bool = False,
        with_payload: bool = True,
        with_embedding: bool = False,
    ) -> SearchHits:
        """The vectors most similar to any of several, each once, by its best score.

        Args:
            embeddings: 1 to `MAX_QUERIES`.
            limit: 1 to `MAX_LIMIT`, over all of them together.
            where: As of `search`.
            using: As of `search`.
            exact: As of `search`.
            with_payload: As of `search`.
            with_embedding: As of `search`.
        """
        vectors = self._vectors.using(using)
        count = validation.check_limit(limit, MAX_LIMIT)
        facts = await vectors.facts()
        queries = validation.check_list(embeddings, name="embeddings")
        validation.check_limit(len(queries), MAX_QUERIES, name="the number of embeddings")
        params: dict[str, Any] = {"candidates": count, "hits": count}
        for number, query in enumerate(queries):
            params[f"query_{number}"] = vectors.encode(query, facts, f"embeddings[{number}]")
        narrowed, form = approach(
            vectors,
            params,
            where,
            exact=exact,
            with_payload=with_payload,
            with_embedding=with_embedding,
        )
        statement = multi(vectors.searches.rows, narrowed, form, len(queries))
        rows = await vectors.rows(statement, params)
        return SearchHits(vectors.hits(rows), requested=count, complete=True)
