"""Searches that fuse meaning, words and sparse vectors, each one statement."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from qortex_db import checks
from qortex_db.errors import InvalidInputError
from qortex_db.filters import check_readable
from qortex_db.filters.full_text import text_configuration
from qortex_db.models.collection import collection_of
from qortex_db.repositories import validation
from qortex_db.repositories.validation import MAX_LIMIT
from qortex_db.repositories.vectors.rows.records import BranchHit, IdT, SearchHit, SearchHits
from qortex_db.repositories.vectors.search.hybrid_statements import (
    FusedBy,
    Fusion,
    dense_prefix,
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
from qortex_db.repositories.vectors.search.text_queries import (
    BM25,
    TextMatch,
    TextQuery,
    TextRank,
    read_text,
)
from qortex_db.repositories.vectors.search.word_statements import word_count
from qortex_db.repositories.vectors.table import TableBound
from qortex_db.repositories.vectors.word_counts import counted_documents
from qortex_db.types import EmbeddingInput, SparseVector

if TYPE_CHECKING:
    from qortex_db.filters import Where
    from qortex_db.limits import Complete
    from qortex_db.repositories.vectors.rows.payload_parts import Body, WithPayload
    from qortex_db.repositories.vectors.table import VectorTable
    from qortex_db.repositories.vectors.table_facts import TableFacts

SparseInput: TypeAlias = SparseVector | Mapping[int, float]
"""A sparse embedding, or a mapping from positions, counted from 0, to components."""


class HybridSearches(TableBound[IdT]):
    """Searches of a table by meaning, words and sparse vectors at once."""

    async def hybrid_search(
        self,
        embedding: EmbeddingInput | str | Sequence[EmbeddingInput | str] | None,
        text: str | None = None,
        *,
        sparse: SparseInput | None = None,
        limit: int = 10,
        offset: int = 0,
        where: Where | None = None,
        where_document: Mapping[str, Any] | None = None,
        alpha: float | None = None,
        weights: Mapping[str, float] | None = None,
        fusion: FusedBy | None = None,
        k: int = 60,
        min_score: float | None = None,
        branch_limit: int | Mapping[str, int] | None = None,
        branch_where: Mapping[str, Where] | None = None,
        using: str | Sequence[str] | None = None,
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
        branches that find it, of `weight` times what `fusion` makes of its place or score there.
        Equal scores have equal ranks; equals are in the order of similarity, then of ids. A hit's
        `branches` says which found it, with its rank and score in each.

        What is not described here is as of :meth:`search`.

        Args:
            embedding: The branch "dense". Where `using` names several vectors as ("title", "body"),
                as many embeddings: the branches "dense:title" and "dense:body"; one that is named
                again is "dense:title:2".
            text: The branch "text": of any form and length.
            sparse: For a sparse vector of the collection: the branch "sparse". By cosine and inner
                product it finds only what is similar at all.
            limit: 1 to `MAX_LIMIT`.
            alpha: 0 to 1: the weight of the dense branches; the others share 1 - alpha. Of several
                each has an equal part.
            fusion: "rrf" makes 1 / (k + rank) of a row's place in a branch, from 1 on; "relative"
                its score there, scaled from 0, the branch's worst, to 1, its best; "dbsf" its
                score, scaled from 0, three standard deviations below the mean, to 1, as much above
                it; "sum" takes the scores as they are. By default "rrf"; "relative" with `alpha`.
            weights: Of branches by name, to multiply theirs; 1 where none is given.
            k: How flat reciprocal ranks are, 1 to 10,000.
            min_score: Leave out hits below this fused score.
            branch_limit: How many each branch brings in, or a mapping by name; by default 100, or
                the limit if larger.
            branch_where: Filters of branches by name, each beside `where`.
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
            DimensionMismatchError: An embedding has another length than the column.
            LimitExceededError: The filter has more than a limit allows.
            EmbeddingModelError: The table is searched by another model's embeddings.
            EncryptionError: What is stored encrypted can't be decrypted.
        """
        count = validation.check_limit(limit, MAX_LIMIT)
        skipped = check_offset(offset, count)
        asked = _Asked(
            await _dense(self._vectors, embedding, using),
            None if text is None else read_text(text, match),
            await _sparse(self._vectors, sparse, sparse_using),
        )
        vectors = asked.dense[0].vectors if asked.dense else self._vectors
        names = asked.names
        limits = _limits(branch_limit, names, max(BRANCH_LIMIT, skipped + count))
        by, params = _fused_by(fusion, alpha, k)
        params |= {
            "hits": skipped + count,
            **_weights(weights, names, alpha),
            **asked.params(limits),
        }
        floor = -math.inf
        if min_score is not None:
            floor = checks.check_number(min_score, name="min_score")
        own = await _own_filters(vectors, branch_where, names)
        how = await approach(
            vectors,
            limits[names[0]] if asked.dense else 1,
            await vectors.narrow(where, where_document),
            exact=exact,
            with_payload=with_payload,
            with_embedding=with_embedding,
            excluding=bool(own) or (asked.text is not None and asked.text.excludes),
            beside=asked.reach(limits),
            skipped=skipped,
            knobs=Knobs(complete=complete),
        )
        bm25 = None
        if asked.text is not None:
            bm25, sent = await _words(vectors, asked.text, rank)
            params |= sent
        form = Fusion(
            names,
            by,
            tuple(each.vectors.zero_distance_score for each in asked.compared),
            tuple(each.vectors.vector for each in asked.dense),
            None if asked.sparse is None else asked.sparse.vectors.vector,
            "any" if asked.text is None else asked.text.match,
            asked.text is not None and asked.text.excludes,
            bm25,
            own,
            await _word_count(vectors, asked.text) if how.form.distributed else 0,
        )
        params |= how.params
        for each in own:
            params |= each.filter.params
        statement = form.statement(search_statements(vectors).rows, how.filter, how.form)
        rows = await vectors.rows(statement, params, how.settings)
        rows = rows[:count]  # of equals at the end there may be more
        # A branch that brings in fewer than the limit may have left out what matches.
        all_in = min(limits.values()) >= skipped + count and not how.form.bounded
        kept = [row for row in rows if row[1] >= floor]
        return SearchHits(
            (
                _hit(vectors, names, row, how.form.with_payload)
                for row in await vectors.opened(kept)
            ),
            requested=count,
            complete=len(rows) == count or all_in,
        )


@dataclass(frozen=True, slots=True)
class _Query:
    """A query of a branch that compares vectors.

    Attributes:
        prefix: Of its parameters.
    """

    name: str
    vectors: VectorTable
    query: Any
    prefix: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is searched for: a branch each."""

    dense: tuple[_Query, ...]
    text: TextQuery | None
    sparse: _Query | None

    def __post_init__(self) -> None:
        if not self.names:
            raise InvalidInputError("Pass an embedding, a text or a sparse embedding.")

    @property
    def names(self) -> tuple[str, ...]:
        dense = [each.name for each in self.dense]
        words = [] if self.text is None else ["text"]
        return (*dense, *words, *([] if self.sparse is None else ["sparse"]))

    @property
    def compared(self) -> tuple[_Query, ...]:
        return (*self.dense, *([] if self.sparse is None else [self.sparse]))

    def params(self, limits: Mapping[str, int]) -> dict[str, Any]:
        params: dict[str, Any] = {}
        for each in self.compared:
            params[f"{each.prefix}query"] = each.query
            params[f"{each.prefix}candidates"] = limits[each.name]
            params[f"{each.prefix}oversampled"] = each.vectors.reach(limits[each.name])
        if self.text is not None:
            params["text_candidates"] = limits["text"]
        return params

    def reach(self, limits: Mapping[str, int]) -> int:
        """The most rows that an index beside the first one brings in."""
        others = self.compared[1:] if self.dense else self.compared
        return max((each.vectors.reach(limits[each.name]) for each in others), default=0)


async def _dense(vectors: VectorTable, given: Any, using: Any) -> tuple[_Query, ...]:
    """One embedding, or one for each of the vectors that are named."""
    if using is None or isinstance(using, str):
        vectors = vectors.using(using)
        if given is None:
            return ()
        return (_Query("dense", vectors, await vectors.encode_query(given), ""),)
    named = validation.check_list(using, name="using")
    embeddings = validation.check_list(given, name="embedding")
    if len(named) != len(embeddings) or not named:
        raise InvalidInputError(
            f"using names {len(named)} vectors, and there are {len(embeddings)} embeddings: pass "
            "one for each."
        )
    validation.check_limit(len(named), MAX_QUERIES, name="the number of embeddings")
    queries = []
    for i, (name, given_one) in enumerate(zip(named, embeddings, strict=True)):
        own = vectors.using(checks.check_text(name, name=f"using[{i}]"))
        (embedding,) = await own.embedded([given_one])
        again = named[: i + 1].count(name)
        called = f"dense:{name}" if again == 1 else f"dense:{name}:{again}"
        check = partial(_encoded, own, embedding, f"embedding[{i}]")
        query = await own.by_facts(check)
        queries.append(_Query(called, own, query, dense_prefix(i)))
    return tuple(queries)


def _encoded(vectors: VectorTable, embedding: object, name: str, facts: TableFacts) -> Any:
    return vectors.encode(embedding, facts, name)


async def _sparse(vectors: VectorTable, given: Any, using: str | None) -> _Query | None:
    if given is None:
        if using is not None:
            raise InvalidInputError(
                "sparse_using names a vector, but there is no sparse embedding."
            )
        return None
    own = _sparse_vector(vectors, using)
    query = await own.by_facts(partial(_encoded, own, given, "sparse"))
    return _Query("sparse", own, query, "sparse_")


def _fused_by(fusion: object, alpha: object, k: object) -> tuple[FusedBy, dict[str, Any]]:
    """How to fuse, and the parameters of that."""
    flatness = float(validation.check_limit(k, MAX_LIMIT, name="k"))
    if fusion is None:
        fusion = "rrf" if alpha is None else "relative"
    checks.check_choice(fusion, get_args(FusedBy), name="fusion")
    by: Any = fusion
    return by, {"k": flatness} if by == "rrf" else {}


async def _words(
    vectors: VectorTable, text: TextQuery, rank: object
) -> tuple[Literal["counted", "found"] | None, dict[str, Any]]:
    """By what to rank a text, and the parameters of that."""
    if "document" not in vectors.table.c:
        raise InvalidInputError(f"The table {vectors.table.name} has no column document.")
    check_readable(vectors.table, None, "text")
    params = dict(text.params)
    weighing = await _weighing(vectors, rank)
    if weighing is None:
        return None, params
    bm25, own = weighing
    params |= {"words": text.words, "bm25_k1": own.k1, "bm25_b": own.b}
    return bm25, params | {"table_name": vectors.qualified_name}


async def _word_count(vectors: VectorTable, text: TextQuery | None) -> int:
    """How many words are looked for one by one."""
    if text is None:
        return 0
    count = word_count(text_configuration(vectors.table))
    found = await vectors.executor.run(count, {"text": text.words})
    return max(1, int(found.rows[0][0]))


async def _own_filters(
    vectors: VectorTable, given: object, names: tuple[str, ...]
) -> tuple[OwnFilter, ...]:
    """The filters of branches that have one, in their order."""
    if given is None:
        return ()
    own = _of_branches(given, names, "branch_where")
    return await own_filters(
        vectors,
        [(own[name], None, name, i) for i, name in enumerate(names) if own.get(name) is not None],
    )


def _hit(
    vectors: VectorTable, names: tuple[str, ...], row: Sequence[Any], body: Body
) -> SearchHit[Any]:
    """A row of `hybrid`."""
    end = len(row) - 2 * len(names)
    told = zip(names, row[end::2], row[end + 1 :: 2], strict=True)
    branches = {name: BranchHit(rank, score) for name, rank, score in told if rank is not None}
    return replace(vectors.shape.hit(row[:end], row[1], body), branches=branches)


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


def _of_branches(given: object, names: tuple[str, ...], at: str) -> Mapping[str, Any]:
    """A mapping from names of branches that a search has."""
    own = checks.as_dict(given, name=at, of="dict by branch")
    if not own.keys() <= set(names):
        raise InvalidInputError(f"{at} names another branch; this search has {', '.join(names)}.")
    return own


def _limits(
    given: int | Mapping[str, int] | None, names: tuple[str, ...], default: int
) -> dict[str, int]:
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
    given: Mapping[str, float] | None, names: tuple[str, ...], alpha: float | None
) -> dict[str, float]:
    """The branches' weights, as parameters."""
    weights: dict[str, float] = dict.fromkeys(names, 1.0)
    if alpha is not None:
        dense = checks.check_number(alpha, name="alpha", low=0, high=1)
        those = [name for name in names if name.startswith("dense")]
        others = max(1, len(names) - len(those))
        weights = {
            name: dense / len(those) if name in those else (1 - dense) / others for name in names
        }
    for name, value in _of_branches({} if given is None else given, names, "weights").items():
        weights[name] *= checks.check_number(value, name=f"weights[{name!r}]", low=0)
    if not any(weights.values()):
        raise InvalidInputError("The weights of all branches are 0; give one of them more.")
    return {f"weight_{i}": weights[name] for i, name in enumerate(names)}
