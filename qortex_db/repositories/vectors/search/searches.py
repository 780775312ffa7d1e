"""Searches of one table: each is one statement, in either lane."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from qortex_db import checks
from qortex_db.errors import InvalidInputError
from qortex_db.filters import values_of
from qortex_db.repositories import validation
from qortex_db.repositories.validation import MAX_LIMIT
from qortex_db.repositories.vectors.rows.diversity import most_diverse
from qortex_db.repositories.vectors.rows.records import (
    IdT,
    SearchGroup,
    SearchGroups,
    SearchHit,
    SearchHits,
)
from qortex_db.repositories.vectors.search.boosts import read_boosts
from qortex_db.repositories.vectors.search.examples import ExampleSearches
from qortex_db.repositories.vectors.search.explain import Explain, SearchPlan, read_plan
from qortex_db.repositories.vectors.search.fused import FusedSearches
from qortex_db.repositories.vectors.search.hybrid import HybridSearches
from qortex_db.repositories.vectors.search.index_settings import (
    IterativeScan,
    Knobs,
    approach,
    check_offset,
    walk_of,
)
from qortex_db.repositories.vectors.search.nearest import SearchForm
from qortex_db.repositories.vectors.search.statements import SearchStatements, search_statements
from qortex_db.repositories.vectors.search.streams import SearchStreams

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qortex_db.filters import Where
    from qortex_db.limits import Complete
    from qortex_db.repositories.vectors.rows.payload_parts import WithPayload
    from qortex_db.repositories.vectors.rows.records import PathInput, SearchHit
    from qortex_db.repositories.vectors.search.boosts import Boost, BoostTerm
    from qortex_db.repositories.vectors.search.index_settings import Approach
    from qortex_db.repositories.vectors.table import VectorTable
    from qortex_db.repositories.vectors.table_facts import TableFacts
    from qortex_db.types import EmbeddingInput


class VectorSearches(
    HybridSearches[IdT], FusedSearches[IdT], ExampleSearches[IdT], SearchStreams[IdT]
):
    """Searches by the metric of a collection; nothing here writes, so a standby can serve it.

    Where an index finds fewer rows than were asked for, the same statement compares with every row,
    unless `complete` says otherwise: a filter, or rows deleted meanwhile, never shorten an answer.
    """

    async def search(
        self,
        embedding: EmbeddingInput | str,
        *,
        limit: int = 10,
        offset: int = 0,
        where: Where | None = None,
        where_document: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        ef_search: int | None = None,
        probes: int | None = None,
        iterative_scan: IterativeScan | None = None,
        oversampling: float | None = None,
        complete: Complete | None = None,
        using: str | None = None,
        exact: bool = False,
        boost: Boost | Sequence[Boost] | None = None,
        fetch_limit: int | None = None,
        with_payload: WithPayload = True,
        with_embedding: bool = False,
    ) -> SearchHits[IdT]:
        """The most similar vectors, best first; ties by id.

        Args:
            embedding: As many numbers as the column holds; or a text, where the collection has an
                embedder.
            limit: 1 to `MAX_LIMIT`.
            offset: How many of the best to skip; with the limit at most `MAX_LIMIT`. Pages of an
                index, which finds other rows with other limits, may overlap; with `exact` they fit.
            where: A filter over the payload, or an expression over the table's columns.
            where_document: `$contains` and `$not_contains` of the document, `$and` and `$or`.
            min_score: Leave out hits below this score; by cosine -1 to 1.
            ef_search: Candidates that an HNSW index keeps, 1 to 1,000; more find more and take
                longer. By default the larger of 40 (400 with a filter) and the limit.
            probes: Lists that an IVFFlat index looks into, 1 to 32,768.
            iterative_scan: How an index goes on where a filter took its candidates away: relaxed
                (the default with a filter), strict, or off.
            oversampling: How many times the limit a quantized index brings in, to be compared anew
                by the full vectors: 1 to 100; by default 2 for half precision, 20 for single bits.
            complete: Whether to compare with every row that matches where the index finds fewer
                than the limit: "always", "never", or "auto": if the table has no more than
                `max_compared_rows`. By default what the settings say: "always".
            using: Which vector of the collection; by default its own, `vec`.
            exact: Compare with every row: slow, and right.
            boost: What else a score is made of: its similarity, times what a `Factor` says, plus
                each other term. `min_score` is one of similarity.
            fetch_limit: How many of the most similar are boosted, `limit` to `MAX_LIMIT`; by
                default ten times the limit, and 100 at least.
            with_payload: Return the hits' payloads, documents and attributes; or of payloads the
                values at these paths alone, with "$document" the document too. A path leads through
                objects; what is not there is left out. A column of the host's is among them by its
                name or as `Item.price`, and in the payload under its name.
            with_embedding: Return the hits' embeddings too.

        Returns:
            Not `complete` where `complete` had it leave out rows that may match.

        Raises:
            InvalidInputError: An argument was refused.
            DimensionMismatchError: An embedding has another length than the column.
            LimitExceededError: The filter has more than a limit allows.
            EncryptionError: What is stored encrypted can't be decrypted.
            EmbeddingModelError: The table is searched by another model's embeddings.
        """
        if (
            where is None
            and where_document is None
            and min_score is None
            and ef_search is None
            and probes is None
            and iterative_scan is None
            and oversampling is None
            and complete is None
            and self._vectors.limits.complete == "always"
            and using is None
            and exact is False
            and type(offset) is int
            and offset == 0
            and boost is None
            and fetch_limit is None
            and with_payload is True
            and with_embedding is False
        ):
            return await self._plain_search(embedding, limit)
        vectors = self._vectors.using(using)
        count = validation.check_limit(limit, MAX_LIMIT)
        skipped = check_offset(offset, count)
        if min_score is not None:
            min_score = vectors.check_score(min_score)
        terms: tuple[BoostTerm, ...] = ()
        sent: dict[str, Any] = {}
        fetch = skipped + count
        if boost is not None:
            terms, sent = read_boosts(vectors, boost)
            fetch = _boosted(skipped + count, fetch_limit)
        elif fetch_limit is not None:
            raise InvalidInputError("fetch_limit says how many are boosted: pass boost as well.")
        how = await approach(
            vectors,
            fetch,
            await vectors.narrow(where, where_document),
            exact=exact,
            with_payload=with_payload,
            with_embedding=with_embedding,
            skipped=0 if terms else skipped,
            knobs=Knobs(ef_search, probes, iterative_scan, oversampling, complete),
        )
        params = {"query": await vectors.encode_query(embedding), **how.params}
        floor = -math.inf if min_score is None else min_score
        if terms:
            start = vectors.zero_distance_score
            # One more: it may be the row that says that the index fell short.
            most = skipped + count + how.form.bounded
            params |= {"max_distance": start - floor, "hits": most, **sent}
            hits, all_in = await self._boosted_search(vectors, how, terms, params)
            return SearchHits(hits[skipped:][:count], requested=count, complete=all_in)
        if how.form.distributed and not exact:
            rows, all_in = await self._merged_search(vectors, how, params, fetch)
            rows = rows[skipped:]
        else:
            statement = search_statements(vectors).search(how.filter, how.form)
            rows, all_in = how.told(await vectors.rows(statement, params, how.settings))
        hits = vectors.hits(await vectors.opened(rows, floor), floor, body=how.form.with_payload)
        return SearchHits(hits, requested=count, complete=all_in)

    @staticmethod
    async def _boosted_search(
        vectors: VectorTable, how: Approach, terms: tuple[BoostTerm, ...], params: dict[str, Any]
    ) -> tuple[list[SearchHit[Any]], bool]:
        """The hits of a search whose scores are of more than distance, and whether they are all."""
        start = vectors.zero_distance_score
        statement = search_statements(vectors).boosted(how.filter, how.form, terms, start)
        rows, all_in = how.told(await vectors.rows(statement, params, how.settings))
        opened = await vectors.opened([row[:-1] for row in rows])
        hits = vectors.hits(opened, body=how.form.with_payload)
        scored = [replace(hit, score=row[-1]) for hit, row in zip(hits, rows, strict=True)]
        return scored, all_in

    async def _plain_search(self, embedding: EmbeddingInput | str, limit: int) -> SearchHits[IdT]:
        """A search of which nothing else is said: its statement is known by its limit."""
        vectors = self._vectors
        count = validation.check_limit(limit, MAX_LIMIT)
        facts = await vectors.facts()
        try:
            query = vectors.encode(embedding, facts)
        except InvalidInputError:  # said in full, unless by facts that are no longer true
            query = await vectors.encode_query(embedding)
        how = await _plain(vectors, count, facts)
        statements = search_statements(vectors)
        params = {"query": query, **how.params}
        if how.form.distributed:
            rows, _ = await self._merged_search(vectors, how, params, count)
            opened = await vectors.opened(rows)
            return SearchHits(vectors.hits(opened, body=True), requested=count, complete=True)
        rows = ()
        # To look whether it fell short takes the server an eighth more.
        short_from = _short_from.get(facts)
        by_index = count < (facts.rows if short_from is None else short_from)
        by_index = by_index and not (how.form.settings or how.settings)
        if by_index:
            rows = await vectors.rows(statements.by_index(how.form), params)
        if len(rows) < count:
            rows = await vectors.rows(statements.search(None, how.form), params, how.settings)
            if by_index:
                _short_from[facts] = count
            elif short_from is None and len(rows) == count:
                _short_from[facts] = MAX_LIMIT + 1
        if vectors.encrypted is not None:
            rows = await vectors.opened(rows)
        return SearchHits(vectors.hits(rows, body=True), requested=count, complete=True)

    @staticmethod
    async def _merged_search(
        vectors: VectorTable, how: Approach, params: Mapping[str, Any], wanted: int
    ) -> tuple[Sequence[Any], bool]:
        """What the indexes of Citus's nodes find, and whether it is all; the first are not skipped.

        Only where that is fewer than are wanted, another statement compares with every row.
        """
        statements = search_statements(vectors)
        found = await vectors.rows(statements.merged(how.filter, how.form), params, how.settings)
        if len(found) >= wanted or how.form.bounded:
            rows = sorted(found, key=lambda row: (math.isnan(row[1]), row[1], row[0]))
            return rows, len(rows) >= wanted
        form = replace(how.form, skips=False)
        every = statements.search(how.filter, form)
        return await vectors.rows(every, params, how.settings), True

    async def explain(
        self,
        embedding: EmbeddingInput | str,
        *,
        limit: int = 10,
        where: Where | None = None,
        where_document: Mapping[str, Any] | None = None,
        ef_search: int | None = None,
        probes: int | None = None,
        iterative_scan: IterativeScan | None = None,
        oversampling: float | None = None,
        complete: Complete | None = None,
        using: str | None = None,
        exact: bool = False,
    ) -> SearchPlan:
        """How the server runs a search: it is run, and its plan is returned; no value is in it.

        What is not described here is as of :meth:`search`.

        Raises:
            InvalidInputError: An argument was refused.
            DimensionMismatchError: An embedding has another length than the column.
            LimitExceededError: The filter has more than a limit allows.
            EmbeddingModelError: The table is searched by another model's embeddings.
        """
        vectors = self._vectors.using(using)
        count = validation.check_limit(limit, MAX_LIMIT)
        narrowed = await vectors.narrow(where, where_document)
        knobs = Knobs(ef_search, probes, iterative_scan, oversampling, complete)
        how = await approach(vectors, count, narrowed, exact=exact, knobs=knobs)
        statements = search_statements(vectors)
        build = statements.merged if how.form.distributed and not exact else statements.search
        statement = Explain(build(how.filter, how.form))
        params = {"query": await vectors.encode_query(embedding), **how.params}
        rows = (await vectors.run(statement, params, how.settings)).rows
        return read_plan(rows[0][0])

    async def range_search(
        self,
        embedding: EmbeddingInput | str,
        *,
        min_score: float,
        limit: int | None = None,
        offset: int = 0,
        where: Where | None = None,
        where_document: Mapping[str, Any] | None = None,
        using: str | None = None,
        with_payload: WithPayload = True,
        with_embedding: bool = False,
    ) -> SearchHits[IdT]:
        """All vectors at least this similar, best first; it compares with every row.

        What is not described here is as of :meth:`search`.

        Args:
            min_score: The least score; by cosine -1 to 1.
            limit: The most hits, by default `MAX_LIMIT` with the offset; `complete` says whether
                there are no more.

        Raises:
            InvalidInputError: An argument was refused.
            DimensionMismatchError: An embedding has another length than the column.
            LimitExceededError: The filter has more than a limit allows.
            EncryptionError: What is stored encrypted can't be decrypted.
            EmbeddingModelError: The table is searched by another model's embeddings.
        """
        vectors = self._vectors.using(using)
        skipped = check_offset(offset, 1 if limit is None else 0)
        count = MAX_LIMIT - skipped
        if limit is not None:
            count = validation.check_limit(limit, MAX_LIMIT)
            check_offset(skipped, count)
        least = vectors.check_score(min_score)
        narrowed = await vectors.narrow(where, where_document)
        params = {
            "query": await vectors.encode_query(embedding),
            "candidates": skipped + count + 1,
            "skipped": skipped,
            "max_distance": vectors.zero_distance_score - least,
            **values_of(narrowed),
        }
        form = SearchForm(
            walk=walk_of(skipped + count + 1),
            skips=skipped > 0,
            with_payload=vectors.body(with_payload),
            with_embedding=with_embedding,
        )
        rows = await vectors.rows(search_statements(vectors).within(narrowed, form), params)
        hits = vectors.hits(await vectors.opened(rows[:count]), body=form.with_payload)
        return SearchHits(hits, requested=count, complete=len(rows) <= count)

    async def mmr_search(
        self,
        embedding: EmbeddingInput | str,
        *,
        limit: int = 10,
        fetch_limit: int = 50,
        lambda_: float = 0.5,
        where: Where | None = None,
        where_document: Mapping[str, Any] | None = None,
        complete: Complete | None = None,
        using: str | None = None,
        exact: bool = False,
        with_payload: WithPayload = True,
        with_embedding: bool = False,
    ) -> SearchHits[IdT]:
        """Similar vectors that differ among themselves, by maximal marginal relevance.

        Relevance and difference are both of the vector's metric, at any scale of the embeddings.
        What is not described here is as of :meth:`search`.

        Args:
            limit: 1 to `fetch_limit`.
            fetch_limit: How many of the most similar are chosen from, up to `MAX_LIMIT`.
            lambda_: 1.0 looks at similarity alone, 0.0 at difference alone. By inner product a zero
                vector is chosen last.

        Returns:
            In the order in which they were chosen; scores are similarities to the query.

        Raises:
            InvalidInputError: An argument was refused.
            DimensionMismatchError: An embedding has another length than the column.
            LimitExceededError: The filter has more than a limit allows.
            EncryptionError: What is stored encrypted can't be decrypted.
            EmbeddingModelError: The table is searched by another model's embeddings.
        """
        fetch = validation.check_limit(fetch_limit, MAX_LIMIT, name="fetch_limit")
        count = validation.check_limit(limit, fetch)
        weight = checks.check_number(lambda_, name="lambda_", low=0, high=1)
        checks.check_flag(with_embedding, name="with_embedding")
        (query,) = await self._vectors.using(using).embedded([embedding])
        found = await self.search(
            query,
            limit=fetch,
            where=where,
            where_document=where_document,
            complete=complete,
            using=using,
            exact=exact,
            with_payload=with_payload,
            with_embedding=True,
        )
        vectors = self._vectors.using(using)
        chosen = most_diverse(
            vectors.read_query(query),
            [hit.embedding for hit in found if hit.embedding is not None],
            count,
            weight,
            vectors.vector.metric,
        )
        hits = [found[i] if with_embedding else replace(found[i], embedding=None) for i in chosen]
        return SearchHits(hits, requested=count, complete=len(hits) == count or found.complete)

    async def search_groups(
        self,
        embedding: EmbeddingInput | str,
        group_by: PathInput,
        *,
        limit: int = 10,
        group_size: int = 3,
        fetch_limit: int | None = None,
        where: Where | None = None,
        where_document: Mapping[str, Any] | None = None,
        complete: Complete | None = None,
        using: str | None = None,
        exact: bool = False,
        with_payload: WithPayload = True,
        with_embedding: bool = False,
    ) -> SearchGroups[IdT]:
        """The best few of each value of a payload's field or a column, groups by their best hit.

        What is not described here is as of :meth:`search`.

        Args:
            group_by: A path into the payload, as in a filter, or a column by its name or attribute;
                rows without a value are left out.
                Values are the same as filters have it: 1 and 1.0 are. An array's row is in the
                group of each of its elements.
            limit: The most groups, 1 to 1,000.
            group_size: The most hits of a group, 1 to 100.
            fetch_limit: How many of the most similar are grouped, up to `MAX_LIMIT`; by default ten
                times what could be returned.

        Returns:
            Not `complete` where groups or hits may be missing since `fetch_limit` was reached, or
            by what `complete` left out.

        Raises:
            InvalidInputError: An argument was refused.
            DimensionMismatchError: An embedding has another length than the column.
            LimitExceededError: The filter has more than a limit allows.
            EncryptionError: What is stored encrypted can't be decrypted.
            EmbeddingModelError: The table is searched by another model's embeddings.
        """
        vectors = self._vectors.using(using)
        count = validation.check_limit(limit, 1_000)
        size = validation.check_limit(group_size, 100, name="group_size")
        fetch = min(MAX_LIMIT, 10 * count * size)
        if fetch_limit is not None:
            fetch = validation.check_limit(fetch_limit, MAX_LIMIT, name="fetch_limit")
        how = await approach(
            vectors,
            fetch,
            await vectors.narrow(where, where_document),
            exact=exact,
            with_payload=with_payload,
            with_embedding=with_embedding,
            knobs=Knobs(complete=complete),
        )
        params = {
            "query": await vectors.encode_query(embedding),
            "hits": count,
            "group_size": size,
            **how.params,
        }
        place = vectors.place(group_by, "group_by")
        statement = search_statements(vectors).groups(how.filter, how.form, place)
        rows = await vectors.rows(statement, params, how.settings)
        groups: dict[int, SearchGroup[IdT]] = {}
        for *hit, value, number, _, _ in await vectors.opened(rows):
            if hit[0] is not None:
                group = groups.setdefault(number, SearchGroup(value, []))
                group.hits.extend(vectors.hits([hit], body=how.form.with_payload))
        full = len(groups) == count and all(len(group.hits) == size for group in groups.values())
        looked_at, told = rows[0][-2:]
        everything = looked_at < fetch and looked_at == told
        return SearchGroups(groups.values(), requested=count, complete=full or everything)


def _boosted(count: int, fetch_limit: object) -> int:
    """How many of the most similar are boosted."""
    if fetch_limit is None:
        return min(MAX_LIMIT, max(_LEAST_BOOSTED, 10 * count))
    fetch = validation.check_limit(fetch_limit, MAX_LIMIT, name="fetch_limit")
    if fetch < count:
        raise InvalidInputError(
            f"fetch_limit is {fetch}, less than the limit, with the offset, {count}."
        )
    return fetch


_LEAST_BOOSTED: Final = 100
_short_from: WeakKeyDictionary[TableFacts, int] = WeakKeyDictionary()
"""From which limit on a table's index once found too few; nothing where that is not known."""
_approaches: dict[tuple[SearchStatements, int, int, bool], Approach] = {}
_MOST_KEPT: Final = 1_024


async def _plain(vectors: VectorTable, count: int, facts: TableFacts) -> Approach:
    """How to find so many without a filter."""
    key = search_statements(vectors), count, facts.partitions, vectors.is_spread(facts)
    how = _approaches.get(key)
    if how is None:
        how = await approach(vectors, count, None, exact=False)
        if len(_approaches) >= _MOST_KEPT:
            _approaches.clear()
        _approaches[key] = how
    return how
