"""Searches of one table: each is one statement, in either lane."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal

from qortex_db.errors import InvalidInputError, NotFoundError
from qortex_db.repositories import validation
from qortex_db.repositories.approach import IterativeScan, Knobs, approach
from qortex_db.repositories.nearest import SearchForm
from qortex_db.repositories.plans import Explain, SearchPlan, read_plan
from qortex_db.repositories.records import (
    MAX_LIMIT,
    EmbeddingInput,
    SearchGroup,
    SearchGroups,
    SearchHits,
)
from qortex_db.repositories.vector_table import VectorTable
from qortex_db.search import check_query, most_diverse, with_document

if TYPE_CHECKING:
    from sqlalchemy import Table

    from qortex_db.engine import Executor
    from qortex_db.search import Where

MAX_QUERIES: Final = 32
"""The most embeddings of one `multi_search`."""
MAX_EXAMPLES: Final = 1_000
"""The most examples of one `recommend`."""

_BRANCH = 100


class VectorSearches:
    """Searches by the metric of a collection; nothing here writes, so a standby can serve it.

    Where an index finds fewer rows than were asked for, the same statement compares with every row:
    a filter, or rows deleted meanwhile, never shorten an answer.
    """

    def __init__(self, executor: Executor, table: Table, *, namespace: Any = None) -> None:
        self._vectors = VectorTable(executor, table, namespace=namespace)

    async def search(
        self,
        embedding: EmbeddingInput,
        *,
        limit: int = 10,
        where: Where | None = None,
        where_document: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        ef_search: int | None = None,
        probes: int | None = None,
        iterative_scan: IterativeScan | None = None,
        oversampling: float | None = None,
        using: str | None = None,
        exact: bool = False,
        with_payload: bool = True,
        with_embedding: bool = False,
    ) -> SearchHits:
        """The most similar vectors, best first; ties by id.

        Args:
            embedding: As many numbers as the column holds.
            limit: 1 to `MAX_LIMIT`.
            where: A filter over the payload, or an expression over the table's columns.
            where_document: `$contains` and `$not_contains` of the document, `$and` and `$or`.
            min_score: Leave out hits below this score; by cosine -1 to 1.
            ef_search: Candidates that an HNSW index keeps, 1 to 1,000; more find more and take
                longer. By default the larger of 40 (200 with a filter) and the limit.
            probes: Lists that an IVFFlat index looks into, 1 to 32,768.
            iterative_scan: How an index goes on where a filter took its candidates away: relaxed
                (the default with a filter), strict, or off.
            oversampling: How many times the limit a quantized index brings in, to be compared anew
                by the full vectors: 1 to 100; by default 2 for half precision, 20 for single bits.
            using: Which vector of the collection; by default its own, `vec`.
            exact: Compare with every row: slow, and right.
            with_payload: Return the hits' payloads and documents.
            with_embedding: Return the hits' embeddings too.

        Raises:
            InvalidInputError: An argument was refused.
        """
        vectors = self._vectors.using(using)
        count = validation.check_limit(limit, MAX_LIMIT)
        if min_score is not None:
            min_score = vectors.check_score(min_score)
        where = with_document(where, where_document)
        knobs = Knobs(ef_search, probes, iterative_scan, oversampling)
        facts = await vectors.facts()
        params = {"query": vectors.encode(embedding, facts), "candidates": count}
        narrowed, form = approach(
            vectors,
            params,
            where,
            exact=exact,
            with_payload=with_payload,
            with_embedding=with_embedding,
            knobs=knobs,
        )
        # A table that has answered in full will do so again: the second half can stay away.
        lean = form.guarded and not (narrowed or form.settings) and facts.plentiful is True
        statement = vectors.searches.search(
            narrowed, replace(form, guarded=False) if lean else form
        )
        rows = await vectors.rows(statement, params)
        if lean and len(rows) < count:
            facts.plentiful = False
            rows = await vectors.rows(vectors.searches.search(None, form), params)
        elif narrowed is None and facts.plentiful is None and len(rows) == count:
            facts.plentiful = True
        floor = -math.inf if min_score is None else min_score
        return SearchHits(vectors.hits(rows, floor), requested=count, complete=True)

    async def explain(
        self,
        embedding: EmbeddingInput,
        *,
        limit: int = 10,
        where: Where | None = None,
        ef_search: int | None = None,
        probes: int | None = None,
        iterative_scan: IterativeScan | None = None,
        oversampling: float | None = None,
        using: str | None = None,
        exact: bool = False,
    ) -> SearchPlan:
        """How the server runs a search: it is run, and its plan is returned; no value is in it.

        Args:
            embedding: As of `search`, like all the others.
        """
        vectors = self._vectors.using(using)
        count = validation.check_limit(limit, MAX_LIMIT)
        knobs = Knobs(ef_search, probes, iterative_scan, oversampling)
        params = {
            "query": vectors.encode(embedding, await vectors.facts()),
            "candidates": count,
        }
        narrowed, form = approach(vectors, params, where, exact=exact, knobs=knobs)
        statement = Explain(vectors.searches.search(narrowed, form))
        rows = (await vectors.run(statement, params)).rows
        return read_plan(rows[0][0])

    async def range_search(
        self,
        embedding: EmbeddingInput,
        *,
        min_score: float,
        limit: int = MAX_LIMIT,
        where: Where | None = None,
        using: str | None = None,
        with_payload: bool = True,
        with_embedding: bool = False,
    ) -> SearchHits:
        """All vectors at least this similar, best first; it compares with every row.

        Args:
            embedding: As of `search`.
            min_score: The least score; by cosine -1 to 1.
            limit: The most hits; `complete` says whether there are no more.
            where: As of `search`.
            using: As of `search`.
            with_payload: As of `search`.
            with_embedding: As of `search`.
        """
        vectors = self._vectors.using(using)
        count = validation.check_limit(limit, MAX_LIMIT)
        least = vectors.check_score(min_score)
        params: dict[str, Any] = {
            "query": vectors.encode(embedding, await vectors.facts()),
            "candidates": count + 1,
            "max_distance": vectors.zero_distance_score - least,
        }
        narrowed = vectors.narrow(where, params)
        form = SearchForm(with_payload=with_payload, with_embedding=with_embedding)
        rows = await vectors.rows(vectors.searches.within(narrowed, form), params)
        return SearchHits(vectors.hits(rows[:count]), requested=count, complete=len(rows) <= count)

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
        statement = vectors.searches.hybrid(narrowed, form, fusion)
        rows = await vectors.rows(statement, params)
        return SearchHits(
            (vectors.shape.hit(row, row[1]) for row in rows), requested=count, complete=True
        )

    async def mmr_search(
        self,
        embedding: EmbeddingInput,
        *,
        limit: int = 10,
        fetch_limit: int = 50,
        lambda_: float = 0.5,
        where: Where | None = None,
        using: str | None = None,
        exact: bool = False,
        with_payload: bool = True,
        with_embedding: bool = False,
    ) -> SearchHits:
        """Similar vectors that differ among themselves, by maximal marginal relevance.

        Args:
            embedding: As of `search`.
            limit: 1 to `fetch_limit`.
            fetch_limit: How many of the most similar are chosen from, up to `MAX_LIMIT`.
            lambda_: 1.0 looks at similarity alone, 0.0 at difference alone.
            where: As of `search`.
            using: As of `search`.
            exact: As of `search`.
            with_payload: As of `search`.
            with_embedding: As of `search`.

        Returns:
            In the order in which they were chosen; scores are similarities to the query.
        """
        fetch = validation.check_limit(fetch_limit, MAX_LIMIT, name="fetch_limit")
        count = validation.check_limit(limit, fetch)
        weight = validation.check_number(lambda_, name="lambda_", low=0, high=1)
        found = await self.search(
            embedding,
            limit=fetch,
            where=where,
            using=using,
            exact=exact,
            with_payload=with_payload,
            with_embedding=True,
        )
        embeddings = [hit.embedding for hit in found if hit.embedding is not None]
        chosen = most_diverse(embeddings, [hit.score for hit in found], count, weight)
        hits = [found[i] if with_embedding else replace(found[i], embedding=None) for i in chosen]
        return SearchHits(hits, requested=count, complete=True)

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
        queries = _listed(embeddings, "embeddings")
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
        statement = vectors.searches.multi(narrowed, form, len(queries))
        rows = await vectors.rows(statement, params)
        return SearchHits(vectors.hits(rows), requested=count, complete=True)

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
            listed = _listed(examples, side)
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
        rows = await vectors.rows(vectors.searches.recommend(narrowed, form), params)
        if rows[0][-1] < wanted:
            raise NotFoundError(f"{wanted - rows[0][-1]} of the examples' ids are not there.")
        found = [row[:-1] for row in rows if row[0] is not None]
        return SearchHits(vectors.hits(found), requested=count, complete=True)

    async def search_groups(
        self,
        embedding: EmbeddingInput,
        group_by: str,
        *,
        limit: int = 10,
        group_size: int = 3,
        fetch_limit: int | None = None,
        where: Where | None = None,
        using: str | None = None,
        exact: bool = False,
        with_payload: bool = True,
        with_embedding: bool = False,
    ) -> SearchGroups:
        """The best few of each value of a payload's field, groups by their best hit.

        Args:
            embedding: As of `search`.
            group_by: A path into the payload, as in a filter; rows without a value are left out.
            limit: The most groups, 1 to 1,000.
            group_size: The most hits of a group, 1 to 100.
            fetch_limit: How many of the most similar are grouped, up to `MAX_LIMIT`; by default ten
                times what could be returned.
            where: As of `search`.
            using: As of `search`.
            exact: As of `search`.
            with_payload: As of `search`.
            with_embedding: As of `search`.

        Returns:
            Not `complete` where groups or hits may be missing since `fetch_limit` was reached.
        """
        vectors = self._vectors.using(using)
        count = validation.check_limit(limit, 1_000)
        size = validation.check_limit(group_size, 100, name="group_size")
        fetch = min(MAX_LIMIT, 10 * count * size)
        if fetch_limit is not None:
            fetch = validation.check_limit(fetch_limit, MAX_LIMIT, name="fetch_limit")
        params: dict[str, Any] = {
            "query": vectors.encode(embedding, await vectors.facts()),
            "candidates": fetch,
            "hits": count,
            "group_size": size,
        }
        narrowed, form = approach(
            vectors,
            params,
            where,
            exact=exact,
            with_payload=with_payload,
            with_embedding=with_embedding,
        )
        statement = vectors.searches.groups(narrowed, form, vectors.steps(group_by, "group_by"))
        rows = await vectors.rows(statement, params)
        groups: dict[str, SearchGroup] = {}
        for *hit, value, _ in rows:
            if hit[0] is not None:
                group = groups.setdefault(repr(value), SearchGroup(value, []))
                group.hits.extend(vectors.hits([hit]))
        full = len(groups) == count and all(len(group.hits) == size for group in groups.values())
        everything = rows[0][-1] < fetch
        return SearchGroups(groups.values(), requested=count, complete=full or everything)


def _listed(values: object, name: str) -> list[Any]:
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise InvalidInputError(f"{name} is a {type(values).__name__}; pass a list, even for one.")
    return list(values)
