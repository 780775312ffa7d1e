"""Searches that start from examples, each one statement."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from qortex_db import checks
from qortex_db.embedders import ExampleText
from qortex_db.errors import InvalidInputError, NotFoundError
from qortex_db.repositories import validation
from qortex_db.repositories.validation import MAX_LIMIT
from qortex_db.repositories.vectors.rows.records import IdT, SearchHits
from qortex_db.repositories.vectors.search.example_statements import best_scores, nearest_to_mean
from qortex_db.repositories.vectors.search.index_settings import (
    BRANCH_LIMIT,
    MAX_QUERIES,
    Knobs,
    approach,
    check_offset,
)
from qortex_db.repositories.vectors.search.statements import search_statements
from qortex_db.repositories.vectors.table import TableBound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qortex_db.filters import Where
    from qortex_db.limits import Complete
    from qortex_db.repositories.vectors.rows.payload_parts import WithPayload
    from qortex_db.repositories.vectors.rows.records import IdInput
    from qortex_db.repositories.vectors.table import VectorTable
    from qortex_db.repositories.vectors.table_facts import TableFacts
    from qortex_db.types import EmbeddingInput

MAX_EXAMPLES: Final = 1_000
"""The most examples of one `recommend` from their mean."""

Strategy: TypeAlias = Literal["average", "best_score"]


class ExampleSearches(TableBound[IdT]):
    """Searches of a table by what is in it."""

    async def recommend(
        self,
        positive: Sequence[IdInput | EmbeddingInput],
        negative: Sequence[IdInput | EmbeddingInput] = (),
        *,
        limit: int = 10,
        offset: int = 0,
        where: Where | None = None,
        where_document: Mapping[str, Any] | None = None,
        strategy: Strategy = "average",
        complete: Complete | None = None,
        using: str | None = None,
        exact: bool = False,
        with_payload: WithPayload = True,
        with_embedding: bool = False,
    ) -> SearchHits[IdT]:
        """What is like the positive examples and unlike the negative ones; no example is a hit.

        What is not described here is as of :meth:`search`.

        Args:
            positive: Ids of stored vectors, embeddings, or texts as `ExampleText`; at least one.
            negative: The same; may be empty.
            limit: 1 to `MAX_LIMIT`.
            strategy: "average" searches from the mean of the positive examples, moved away from the
                mean of the negative ones by the difference between the two; by cosine each counts
                by its direction alone. "best_score" compares with each of up to `MAX_QUERIES`: a
                score is the greatest similarity to a positive example if that is above the greatest
                to a negative one, and else minus the square of the latter. By l2 and l1 similarity
                is 1 / (1 + distance). The index brings in the hundred nearest of each positive
                example, or as many as the limit if that is larger.

        Raises:
            InvalidInputError: An argument was refused.
            DimensionMismatchError: An embedding has another length than the column.
            LimitExceededError: The filter has more than a limit allows.
            NotFoundError: An id is not there, or its row has no such vector.
            EmbeddingModelError: The table is searched by another model's embeddings.
            EncryptionError: What is stored encrypted can't be decrypted.

        Source:
            Qdrant's recommendation strategies `average_vector` and `best_score`.
        """
        vectors = self._vectors.using(using)
        checks.check_choice(strategy, get_args(Strategy), name="strategy")
        by_each = strategy == "best_score"
        count = validation.check_limit(limit, MAX_LIMIT)
        skipped = check_offset(offset, count)
        given = await _embedded(vectors, "positive", positive)
        liked = await vectors.by_facts(partial(_examples, vectors, "positive", given))
        if not liked.count:
            raise InvalidInputError("positive is empty; pass at least one example.")
        given = await _embedded(vectors, "negative", negative)
        disliked = await vectors.by_facts(partial(_examples, vectors, "negative", given))
        wanted = liked.count + disliked.count
        most = MAX_QUERIES if by_each else MAX_EXAMPLES
        validation.check_limit(wanted, most, name="the number of examples")
        how = await approach(
            vectors,
            max(BRANCH_LIMIT, skipped + count) if by_each else skipped + count,
            await vectors.narrow(where, where_document),
            excluding=True,  # the examples
            exact=exact,
            with_payload=with_payload,
            with_embedding=with_embedding,
            queries=liked.count,
            knobs=Knobs(complete=complete),
        )
        sources = search_statements(vectors).rows
        if by_each:
            statement = best_scores(sources, how.filter, how.form)
        else:
            statement = nearest_to_mean(sources, how.filter, how.form)
        params = {"hits": skipped + count, **liked.params, **disliked.params, **how.params}
        rows = await vectors.rows(statement, params, how.settings)
        if rows[0][-1] < wanted:
            missing = wanted - rows[0][-1]
            raise NotFoundError(
                f"{missing} of the examples' ids are not there, or have no {vectors.name}."
            )
        found = await vectors.opened([row[:-1] for row in rows[skipped:] if row[0] is not None])
        shape, body = vectors.shape, how.form.with_payload
        hits = (
            [shape.hit(row, row[1], body) for row in found]
            if by_each
            else vectors.hits(found, body=body)
        )
        full = len(hits) == count or not how.form.bounded
        return SearchHits(hits, requested=count, complete=full)


@dataclass(frozen=True, slots=True)
class _Examples:
    """The examples of a side: how many there are, and their parameters."""

    count: int
    params: Mapping[str, Any]


async def _embedded(vectors: VectorTable, side: str, given: object) -> list[Any]:
    """The examples of a side, with an embedding in the place of each text."""
    listed = validation.check_list(given, name=side)
    texts = [str(one) for one in listed if isinstance(one, ExampleText)]
    made = iter(await vectors.embedded(texts) if texts else ())
    return [next(made) if isinstance(one, ExampleText) else one for one in listed]


def _examples(
    vectors: VectorTable, side: str, listed: Sequence[Any], facts: TableFacts
) -> _Examples:
    is_key = vectors.key.is_key
    ids = [one for one in listed if is_key(one)]
    keys = validation.check_keys(ids, vectors.key, name=f"the ids of {side}")
    embeddings = [
        vectors.encode(one, facts, f"{side}[{i}]")
        for i, one in enumerate(listed)
        if not is_key(one)
    ]
    params = {f"{side}_ids": keys, f"{side}_vecs": embeddings}
    return _Examples(len(keys) + len(embeddings), params)
