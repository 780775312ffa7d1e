"""Searches that fuse several queries, each one statement."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from qortex_db import checks
from qortex_db.errors import InvalidInputError
from qortex_db.repositories import validation
from qortex_db.repositories.validation import MAX_LIMIT
from qortex_db.repositories.vectors.rows.records import IdT, SearchHits
from qortex_db.repositories.vectors.search.fused_statements import (
    many,
    many_filtered,
    most_found,
    multi,
)
from qortex_db.repositories.vectors.search.index_settings import (
    BRANCH_LIMIT,
    MAX_QUERIES,
    Knobs,
    approach,
    check_offset,
)
from qortex_db.repositories.vectors.search.own_filters import OwnFilter, own_filters
from qortex_db.repositories.vectors.search.statements import search_statements
from qortex_db.repositories.vectors.table import TableBound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qortex_db.filters import Where
    from qortex_db.limits import Complete
    from qortex_db.repositories.vectors.rows.payload_parts import WithPayload
    from qortex_db.repositories.vectors.table import VectorTable
    from qortex_db.types import EmbeddingInput

Rank: TypeAlias = Literal["best_score", "count"]
"""What `multi_search` puts first: what is most similar to one, or to most."""


class FusedSearches(TableBound[IdT]):
    """Searches of a table by several queries at once."""

    async def multi_search(
        self,
        embeddings: Sequence[EmbeddingInput | str],
        *,
        limit: int = 10,
        offset: int = 0,
        rank: Rank = "best_score",
        where: Where | None = None,
        where_document: Mapping[str, Any] | None = None,
        complete: Complete | None = None,
        using: str | None = None,
        exact: bool = False,
        with_payload: WithPayload = True,
        with_embedding: bool = False,
    ) -> SearchHits[IdT]:
        """The vectors most similar to any of several, or to most of them, each once.

        What is not described here is as of :meth:`search`.

        Args:
            embeddings: 1 to `MAX_QUERIES`.
            limit: 1 to `MAX_LIMIT`, over all of them together.
            rank: "best_score", or "count": of how many of the embeddings a row is among the hundred
                nearest, or as many as the limit if that is larger, times its mean similarity to
                those. By l2 and l1 similarity is 1 / (1 + distance).

        Raises:
            InvalidInputError: An argument was refused.
            DimensionMismatchError: An embedding has another length than the column.
            LimitExceededError: The filter has more than a limit allows.
            EncryptionError: What is stored encrypted can't be decrypted.
            EmbeddingModelError: The table is searched by another model's embeddings.
        """
        vectors = self._vectors.using(using)
        checks.check_choice(rank, get_args(Rank), name="rank")
        by_count = rank == "count"
        count = validation.check_limit(limit, MAX_LIMIT)
        skipped = check_offset(offset, count)
        queries = await _queries(vectors, embeddings)
        how = await approach(
            vectors,
            max(BRANCH_LIMIT, skipped + count) if by_count else skipped + count,
            await vectors.narrow(where, where_document),
            exact=exact,
            with_payload=with_payload,
            with_embedding=with_embedding,
            skipped=skipped,
            queries=len(queries),
            knobs=Knobs(complete=complete),
        )
        build = most_found if by_count else multi
        statement = build(search_statements(vectors).rows, how.filter, how.form)
        hits_of = skipped + count if by_count else count
        rows = await vectors.rows(
            statement, {"hits": hits_of, "queries": queries, **how.params}, how.settings
        )
        rows, all_in = how.told(rows)
        opened = await vectors.opened(rows)
        shape, body = vectors.shape, how.form.with_payload
        hits = (
            [shape.hit(row, row[1], body) for row in opened]
            if by_count
            else vectors.hits(opened, body=body)
        )
        return SearchHits(hits, requested=count, complete=len(hits) == count or all_in)

    async def search_many(
        self,
        embeddings: Sequence[EmbeddingInput | str],
        *,
        limit: int = 10,
        offset: int = 0,
        where: Where | Sequence[Where | None] | None = None,
        where_document: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        complete: Complete | None = None,
        using: str | None = None,
        exact: bool = False,
        with_payload: WithPayload = True,
        with_embedding: bool = False,
    ) -> list[SearchHits[IdT]]:
        """What `search` finds for each of several embeddings, in one round trip.

        What is not described here is as of :meth:`search`.

        Args:
            embeddings: 1 to `MAX_QUERIES`.
            limit: 1 to `MAX_LIMIT`, for each of them; in sum at most `max_search_many_hits`.
            where: One filter for all, or a list with one, or None, for each embedding.

        Returns:
            The answers in the order of the embeddings.

        Raises:
            InvalidInputError: An argument was refused.
            DimensionMismatchError: An embedding has another length than the column.
            LimitExceededError: A filter, or the number of hits, is more than a limit allows.
            EncryptionError: What is stored encrypted can't be decrypted.
            EmbeddingModelError: The table is searched by another model's embeddings.
        """
        vectors = self._vectors.using(using)
        count = validation.check_limit(limit, MAX_LIMIT)
        skipped = check_offset(offset, count)
        floor = -math.inf if min_score is None else vectors.check_score(min_score)
        queries = await _queries(vectors, embeddings)
        vectors.limits.check(
            "max_search_many_hits", len(queries) * (skipped + count), "search_many", "hits"
        )
        listed = isinstance(where, (list, tuple))
        own = await _filters(vectors, where, where_document, len(queries)) if listed else ()
        how = await approach(
            vectors,
            skipped + count,
            None if listed else await vectors.narrow(where, where_document),  # type: ignore[arg-type]
            exact=exact,
            excluding=listed,
            with_payload=with_payload,
            with_embedding=with_embedding,
            queries=len(queries),
            knobs=Knobs(complete=complete),
        )
        sources = search_statements(vectors).rows
        params = dict(how.params)
        if listed:
            statement = many_filtered(sources, how.form, len(queries), own)
            params |= {f"query_{i}": query for i, query in enumerate(queries)}
            for each in own:
                params |= each.filter.params
        else:
            statement = many(sources, how.filter, how.form)
            params["queries"] = queries
        rows = await vectors.rows(statement, params, how.settings)
        hits, _ = how.told(rows)
        short = {row[-1] for row in rows if row[0] is None}
        answers: list[list[Any]] = [[] for _ in queries]
        for *row, number in await vectors.opened(hits, floor):
            answers[number - 1].append(row)
        return [
            SearchHits(
                vectors.hits(answer[skipped:], floor, body=how.form.with_payload),
                requested=count,
                complete=number not in short,
            )
            for number, answer in enumerate(answers, start=1)
        ]


async def _filters(
    vectors: VectorTable, where: object, document: Mapping[str, Any] | None, count: int
) -> tuple[OwnFilter, ...]:
    """A filter for each query that has one."""
    given = validation.check_list(where, name="where")
    if len(given) != count:
        raise InvalidInputError(
            f"where lists {len(given)} filters, and there are {count} embeddings: pass one, or "
            "None, for each."
        )
    return await own_filters(
        vectors,
        [
            (one, document, str(i), i)
            for i, one in enumerate(given)
            if one is not None or document is not None
        ],
    )


async def _queries(vectors: VectorTable, embeddings: object) -> list[Any]:
    """Several queries, checked and encoded."""
    given = validation.check_list(embeddings, name="embeddings")
    validation.check_limit(len(given), MAX_QUERIES, name="the number of embeddings")
    given = await vectors.embedded(given)
    return await vectors.by_facts(
        lambda facts: [
            vectors.encode(query, facts, f"embeddings[{i}]") for i, query in enumerate(given)
        ]
    )
