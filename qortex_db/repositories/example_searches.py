"""Searches that start from examples, each one statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from qortex_db.errors import InvalidInputError, NotFoundError
from qortex_db.repositories import validation
from qortex_db.repositories.approach import approach
from qortex_db.repositories.example_statements import nearest_to_mean
from qortex_db.repositories.records import MAX_LIMIT, EmbeddingInput, SearchHits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qortex_db.repositories.vector_table import VectorTable
    from qortex_db.search import Where

MAX_EXAMPLES: Final = 1_000
"""The most examples of one `recommend`."""


class ExampleSearches:
    """Searches of a table by what is in it."""

    _vectors: VectorTable

    async def recommend(
        self,
        positive: Sequence[str | EmbeddingInput],
        negative: Sequence[str | EmbeddingInput] = (),
        *,
        limit: int = 10,
        where: Where | None = None,
        using: str | None = None,
        exact: bool = False,
        with_payload: bool = True,
        with_embedding: bool = False,
    ) -> SearchHits:
        """What is like the positive examples and unlike the negative ones; no example is a hit.

        It searches from the mean of the positive ones, moved away from the mean of the negative
        ones by the difference between the two; by cosine each counts by its direction alone.

        Args:
            positive: Ids of stored vectors, or embeddings; at least one.
            negative: The same; may be empty.
            limit: 1 to `MAX_LIMIT`.
            where: As of `search`.
            using: As of `search`.
            exact: As of `search`.
            with_payload: As of `search`.
            with_embedding: As of `search`.

        Raises:
            NotFoundError: An id is not there.
        """
        vectors = self._vectors.using(using)
        count = validation.check_limit(limit, MAX_LIMIT)
        facts = await vectors.facts()
        params: dict[str, Any] = {"candidates": count}
        wanted = 0
        for side, examples in (("positive", positive), ("negative", negative)):
            listed = validation.check_list(examples, name=side)
            ids = [one for one in listed if isinstance(one, str)]
            vecs = [
                vectors.encode(one, facts, f"{side}[{i}]")
                for i, one in enumerate(listed)
                if not isinstance(one, str)
            ]
            params[f"{side}_ids"] = validation.check_ids(ids, name=f"the ids of {side}")
            params[f"{side}_vecs"] = vecs
            wanted += len(params[f"{side}_ids"]) + len(vecs)
            if side == "positive" and not listed:
                raise InvalidInputError("positive is empty; pass at least one example.")
        validation.check_limit(wanted, MAX_EXAMPLES, name="the number of examples")
        narrowed, form = approach(
            vectors,
            params,
            where,
            excluding=True,  # the examples
            exact=exact,
            with_payload=with_payload,
            with_embedding=with_embedding,
        )
        rows = await vectors.rows(nearest_to_mean(vectors.searches.rows, narrowed, form), params)
        if rows[0][-1] < wanted:
            raise NotFoundError(f"{wanted - rows[0][-1]} of the examples' ids are not there.")
        found = [row[:-1] for row in rows if row[0] is not None]
        return SearchHits(vectors.hits(found), requested=count, complete=True)
