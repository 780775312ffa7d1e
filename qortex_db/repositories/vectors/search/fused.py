"""Searches that fuse several queries, each one statement."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from qortex_db import checks
from qortex_db.errors import InvalidInputError
from qortex_db.filters import check_readable
from qortex_db.models.collection import collection_of
from qortex_db.repositories import validation
from qortex_db.repositories.validation import MAX_LIMIT
from qortex_db.repositories.vectors.records import IdT, SearchHits
from qortex_db.repositories.vectors.search.fused_statements import (
    BranchName,
    Fusion,
    hybrid,
    many,
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
from qortex_db.repositories.vectors.search.statements import search_statements
from qortex_db.repositories.vectors.search.text_queries import (
    BM25,
    TextMatch,
    TextRank,
    read_text,
)
from qortex_db.repositories.vectors.table import TableBound
from qortex_db.repositories.vectors.word_counts import counted_documents
from qortex_db.types import EmbeddingInput, SparseVector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qortex_db.filters import Where
    from qortex_db.limits import Complete
    from qortex_db.repositories.vectors.payload_parts import WithPayload
    from qortex_db.repositories.vectors.table import VectorTable

SparseInput: TypeAlias = SparseVector | Mapping[int, float]
"""A sparse embedding, or a mapping from positions, counted from 0, to components."""

Rank: TypeAlias = Literal["best_score", "count"]
"""What `multi_search` puts first: what is most similar to one, or to most."""

_BRANCHES: Final[tuple[BranchName, ...]] = get_args(BranchName)


class FusedSearches(TableBound[IdT]):
    """Searches of a table by several queries at once."""

    async def hybrid_search(
        self,
        embedding: EmbeddingInput | str | None,
        text: str | None = None,
        *,
        sparse: SparseInput | None = None,
        limit: int = 10,
        offset: int = 0,
        where: Where | None = None,
        where_document: Mapping[str, Any] | None = None,
        alpha: float | None = None,
        weights: Mapping[BranchName, float] | None = None,
        k: int = 60,
        branch_limit: int | Mapping[BranchName, int] | None = None,
        using: str | None = None,
        sparse_using: str | None = None,
        match: TextMatch = "any",
        rank: TextRank | BM25 | None = None,
        complete: Complete | None = None,
        exact: bool = False,
        with_payload: WithPayload = True,
        with_embedding: bool = False,
    ) -> SearchHits[IdT]:
        """The best by meaning, by words and by a sparse vector together, all under one filter.

        Each that is given is a branch; one alone will do. A row's score is the sum over the
        branches that find it: by reciprocal rank `weight / (k + rank)`, or with `alpha`
        `weight * s`, where s is the branch's own score scaled from 0, its worst, to 1, its best.
        Equal scores have equal ranks; equals are in the order of similarity, then of ids.

        What is not described here is as of :meth:`search`.

        Args:
            embedding: The branch "dense".
            text: The branch "text": of any form and length.
            sparse: For a sparse vector of the collection: the branch "sparse". By cosine and inner
                product it finds only what is similar at all.
            limit: 1 to `MAX_LIMIT`.
            alpha: 0 to 1: the weight of the dense branch; the others share 1 - alpha equally. None
                fuses by reciprocal rank.
            weights: Of branches by name, to multiply theirs; 1 where none is given.
            k: How flat reciprocal ranks are, 1 to 10,000.
            branch_limit: How many each branch brings in, or a mapping by name; by default 100, or
                the limit if larger.
            sparse_using: The name of the sparse vector, where the collection has several.
            match: "any" of the words of the text: documents with more and with rarer ones are
                better. "all" of them; "phrase", one after the other; or "websearch": words,
                "phrases", `or`, and -exclusions, which are left out of the whole answer. The first
                64 words count; a websearch has at most 1,000 characters.
            rank: By what the branch "text" ranks: "bm25", or `BM25(k1=…, b=…)`, by how rare the
                words are in the table, how often a document has them, and how long it is; or
                "ts_rank". By default BM25 once :meth:`count_words` has counted the table's words,
                and ts_rank before.
            exact: Compare the embeddings with every row.

        Returns:
            Not `complete` where fewer than the limit came back and a `branch_limit` is below it, or
            `complete` is not "always".

        Raises:
            InvalidInputError: An argument was refused, or the table lacks what a branch looks at.
        """
        vectors = self._vectors.using(using)
        count = validation.check_limit(limit, MAX_LIMIT)
        skipped = check_offset(offset, count)
        if sparse is None and sparse_using is not None:
            raise InvalidInputError(
                "sparse_using names a vector, but there is no sparse embedding."
            )
        beside = _sparse_vector(vectors, sparse_using) if sparse is not None else None
        asked = read_text("" if text is None else text, match)
        given = {"dense": embedding, "text": text, "sparse": sparse}
        names: tuple[BranchName, ...] = tuple(name for name in _BRANCHES if given[name] is not None)
        if not names:
            raise InvalidInputError("Pass an embedding, a text or a sparse embedding.")
        limits = _limits(branch_limit, names, max(BRANCH_LIMIT, skipped + count))
        params: dict[str, Any] = {"hits": skipped + count, **_weights(weights, names, alpha)}
        params |= {f"{name}_candidates": limits[name] for name in names}
        bm25: Literal["counted", "found"] | None = None
        flatness = float(validation.check_limit(k, MAX_LIMIT, name="k"))
        if alpha is None:
            params["k"] = flatness
        if text is not None:
            if "document" not in vectors.table.c:
                raise InvalidInputError(f"The table {vectors.table.name} has no column document.")
            check_readable(vectors.table, None, "text")
            params |= asked.params
            weighing = await _weighing(vectors, rank)
            if weighing is not None:
                bm25, own = weighing
                params |= {"words": asked.words, "bm25_k1": own.k1, "bm25_b": own.b}
                params["table_name"] = vectors.qualified_name
        if embedding is not None:
            params["query"] = await vectors.encode_query(embedding)
        if beside is not None:
            params["sparse_query"] = await beside.by_facts(
                lambda facts: beside.encode(sparse, facts, "sparse")
            )
        how = await approach(
            vectors,
            limits.get("dense", 1),
            await vectors.narrow(where, where_document),
            exact=exact,
            with_payload=with_payload,
            with_embedding=with_embedding,
            excluding=asked.excludes,
            beside=limits.get("sparse", 0),
            skipped=skipped,
            knobs=Knobs(complete=complete),
        )
        spec = None if beside is None else beside.vector
        by: Literal["ranks", "scores"] = "ranks" if alpha is None else "scores"
        fusion = Fusion(names, by, spec, asked.match, asked.excludes, bm25)
        statement = hybrid(search_statements(vectors).rows, how.filter, how.form, fusion)
        rows = await vectors.rows(statement, {**params, **how.params})
        rows = rows[:count]  # of equals at the end there may be more
        # A branch that brings in fewer than the limit may have left out what matches.
        all_in = min(limits.values()) >= skipped + count and not how.form.bounded
        return SearchHits(
            (vectors.shape.hit(row, row[1]) for row in await vectors.opened(rows)),
            requested=count,
            complete=len(rows) == count or all_in,
        )

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
            knobs=Knobs(complete=complete),
        )
        build = most_found if by_count else multi
        statement = build(search_statements(vectors).rows, how.filter, how.form)
        hits_of = skipped + count if by_count else count
        rows = await vectors.rows(statement, {"hits": hits_of, "queries": queries, **how.params})
        rows, all_in = how.told(rows)
        opened = await vectors.opened(rows)
        shape = vectors.shape
        hits = [shape.hit(row, row[1]) for row in opened] if by_count else vectors.hits(opened)
        return SearchHits(hits, requested=count, complete=len(hits) == count or all_in)

    async def search_many(
        self,
        embeddings: Sequence[EmbeddingInput | str],
        *,
        limit: int = 10,
        offset: int = 0,
        where: Where | None = None,
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

        Returns:
            The answers in the order of the embeddings.
        """
        vectors = self._vectors.using(using)
        count = validation.check_limit(limit, MAX_LIMIT)
        skipped = check_offset(offset, count)
        floor = -math.inf if min_score is None else vectors.check_score(min_score)
        queries = await _queries(vectors, embeddings)
        vectors.limits.check(
            "max_search_many_hits", len(queries) * (skipped + count), "search_many", "hits"
        )
        how = await approach(
            vectors,
            skipped + count,
            await vectors.narrow(where, where_document),
            exact=exact,
            with_payload=with_payload,
            with_embedding=with_embedding,
            knobs=Knobs(complete=complete),
        )
        statement = many(search_statements(vectors).rows, how.filter, how.form)
        rows = await vectors.rows(statement, {"queries": queries, **how.params})
        hits, _ = how.told(rows)
        short = {row[-1] for row in rows if row[0] is None}
        answers: list[list[Any]] = [[] for _ in queries]
        for *row, number in await vectors.opened(hits, floor):
            answers[number - 1].append(row)
        return [
            SearchHits(
                vectors.hits(answer[skipped:], floor), requested=count, complete=number not in short
            )
            for number, answer in enumerate(answers, start=1)
        ]


async def _weighing(
    vectors: VectorTable, rank: object
) -> tuple[Literal["counted", "found"], BM25] | None:
    """How to rank by BM25; None for not at all."""
    if rank is not None and not isinstance(rank, BM25):
        checks.check_choice(rank, get_args(TextRank), name="rank")
    if rank == "ts_rank":
        return None
    own = rank if isinstance(rank, BM25) else BM25()
    if await counted_documents(vectors) is not None:
        return "counted", own
    return None if rank is None else ("found", own)


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


def _sparse_vector(vectors: VectorTable, name: str | None) -> VectorTable:
    """The sparse vector of this name, or the only one."""
    specs = collection_of(vectors.table).vectors.items()
    names = [key for key, spec in specs if spec.storage == "sparse"]
    if name is None and len(names) == 1:
        return vectors.using(names[0])
    if not isinstance(name, str) or name not in names:
        has = f"it has {', '.join(names)}: pass sparse_using" if names else "it has none"
        raise InvalidInputError(f"Which sparse vector of {vectors.table.name}? {has}.")
    return vectors.using(name)


def _of_branches(given: object, names: tuple[BranchName, ...], at: str) -> Mapping[BranchName, Any]:
    """A mapping from names of branches that a search has."""
    own = checks.as_dict(given, name=at, of="dict by branch")
    if not own.keys() <= set(names):
        raise InvalidInputError(f"{at} names another branch; this search has {', '.join(names)}.")
    return own


def _limits(
    given: int | Mapping[BranchName, int] | None, names: tuple[BranchName, ...], default: int
) -> dict[BranchName, int]:
    at = "branch_limit"
    if given is None or isinstance(given, Mapping):
        own = _of_branches(given or {}, names, at)
    else:
        own = dict.fromkeys(names, given)
    limits = dict.fromkeys(names, default)
    return limits | {
        name: validation.check_limit(value, MAX_LIMIT, name=at) for name, value in own.items()
    }


def _weights(
    given: Mapping[BranchName, float] | None, names: tuple[BranchName, ...], alpha: float | None
) -> dict[str, float]:
    """The branches' weights, as parameters."""
    weights: dict[BranchName, float] = dict.fromkeys(names, 1.0)
    if alpha is not None:
        dense = checks.check_number(alpha, name="alpha", low=0, high=1)
        others = max(1, len(names) - ("dense" in names))
        weights = {name: dense if name == "dense" else (1 - dense) / others for name in names}
    for name, value in _of_branches({} if given is None else given, names, "weights").items():
        weights[name] *= checks.check_number(value, name=f"weights[{name!r}]", low=0)
    if not any(weights.values()):
        raise InvalidInputError("The weights of all branches are 0; give one of them more.")
    return {f"{name}_weight": weight for name, weight in weights.items()}
