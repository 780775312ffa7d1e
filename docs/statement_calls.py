"""Every public method of every repository in each of its forms, for docs/statements.md.

A form is what makes another statement: the tests see that no method, no statement that is built at
import and no builder of statements is left out.
"""

from __future__ import annotations

import base64
import enum
import itertools
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias
from unittest.mock import patch

import numpy as np  # noqa: TC002 - SQLAlchemy resolves Mapped[...]
from numpy.typing import NDArray  # noqa: TC002 - the same
from sqlalchemy import (
    ARRAY,
    JSON,
    Index,
    String,
    Text,
    TypeDecorator,
    delete,
    func,
    insert,
    text,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import (
    ALL_CONTEXTS,
    ArmState,
    CachedEmbedding,
    Collection,
    ConflictError,
    CounterOverflowError,
    Database,
    EdgeStats,
    Embedder,
    Factor,
    FieldBoost,
    IndexedDocument,
    IVFFlat,
    Partitions,
    QortexVector,
    RecencyBoost,
    ValueBoost,
    VectorMixin,
    VectorSpec,
    payload_index,
    vector_column,
)
from qortex_db.checks import MAX_INT4
from qortex_db.repositories.checkpoints import CheckpointRepository
from qortex_db.repositories.indexed_documents import IndexedDocumentRepository
from qortex_db.repositories.vectors import bulk_changes, ingest
from qortex_db.types import Embedding, SparseVector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncConnection

Call: TypeAlias = Callable[[Any], Awaitable[object]]
Calls: TypeAlias = Mapping[str, Mapping[str, Call]]
"""By method and form."""

DIMENSIONS = 8
ENCRYPTION_KEYS = [base64.urlsafe_b64encode(bytes(range(32))).decode()]
"""A Fernet key of nobody's."""
VECTOR = [1.0] + [0.0] * 7
OTHER = [0.0, 1.0] + [0.0] * 6
SPARSE = {1: 1.0, 5: 0.5}
_n = itertools.count()
WHERE = {"kind": "novel"}
EACH = {"year": {"$gte": 0}}
"""Of every row that has a year."""
AGGREGATED = {
    "price": ("min", "max", "mean", "median", "sum", "count", "distinct"),
    "year": ("min", "max"),
}
DEFAULT = "by default"


@dataclass(frozen=True, slots=True)
class Section:
    """The calls of one repository.

    Attributes:
        name: What its methods are called by.
        about: A sentence or two.
        repository: Made of all repositories.
        prelude: Run before, and not recorded.
        history: Whether the history of learners is on.
    """

    title: str
    name: str
    about: str
    repository: Callable[[Any], Any]
    calls: Calls
    prelude: Callable[[Database], Awaitable[object]] | None = None
    history: bool = False


class Base(DeclarativeBase):
    """The host's."""


class Worded(VectorMixin, Base):
    __tablename__ = "worded"
    __collection__ = Collection(VectorSpec(DIMENSIONS), text="english")


class Halved(VectorMixin, Base):
    __tablename__ = "halved"
    __collection__ = Collection(VectorSpec(DIMENSIONS, quantization="half"))


class Bits(VectorMixin, Base):
    __tablename__ = "bits"
    __collection__ = Collection(VectorSpec(DIMENSIONS, quantization="binary"))


class HalfStored(VectorMixin, Base):
    __tablename__ = "half_stored"
    __collection__ = Collection(VectorSpec(DIMENSIONS, "l2", "half"))


class Lists(VectorMixin, Base):
    __tablename__ = "lists"
    __collection__ = Collection(
        VectorSpec(DIMENSIONS, "inner_product", index=IVFFlat(lists=1)), language="english"
    )


class Taxicab(VectorMixin, Base):
    __tablename__ = "taxicab"
    __collection__ = Collection(VectorSpec(DIMENSIONS, "l1"), language=None)


class Changing(VectorMixin, Base):
    __tablename__ = "changing"
    __collection__ = Collection(VectorSpec(DIMENSIONS, index=None), language=None)

    v2: Mapped[NDArray[np.float32] | None] = vector_column(VectorSpec(DIMENSIONS, index=None))


class Bare(Base):
    """A table of vectors and nothing else."""

    __tablename__ = "bare"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    vec: Mapped[Any] = mapped_column(Embedding(DIMENSIONS))


class Numbered(Base):
    """A table whose keys the server makes."""

    __tablename__ = "numbered"
    __collection__ = Collection(VectorSpec(DIMENSIONS, index=None))

    id: Mapped[int] = mapped_column(primary_key=True)
    vec: Mapped[Any | None] = mapped_column(Embedding(DIMENSIONS))


class Parted(VectorMixin, Base):
    __tablename__ = "parted"
    __collection__ = Collection(VectorSpec(DIMENSIONS), language=None, partitions=Partitions(2))


class Message(VectorMixin, Base):
    __tablename__ = "messages"
    __collection__ = Collection(VectorSpec(DIMENSIONS), namespace="tenant")


class Mail(VectorMixin, Base):
    __tablename__ = "mails"
    __collection__ = Collection(
        VectorSpec(DIMENSIONS),
        namespace="tenant",
        namespace_in_key=True,
        large_namespaces=("acme",),
    )


class Sealed(VectorMixin, Base):
    __tablename__ = "sealed"
    __collection__ = Collection(
        VectorSpec(DIMENSIONS), encrypted=("secret",), encrypted_document=True
    )


class Kind(enum.Enum):
    BOOK = "book"
    PAPER = "paper"


class Lowered(TypeDecorator[str]):
    """A host's own type, that has SQL of its own."""

    impl = String
    cache_ok = True

    def bind_expression(self, bindparam: Any) -> Any:
        return func.lower(bindparam)


class Article(VectorMixin, Base):
    __tablename__ = "articles"
    __collection__ = Collection(VectorSpec(DIMENSIONS), language="english")

    title: Mapped[NDArray[np.float32] | None] = vector_column(VectorSpec(4, storage="half"))
    words: Mapped[SparseVector | None] = vector_column(
        VectorSpec(30, metric="inner_product", storage="sparse")
    )
    author: Mapped[str | None]
    kind: Mapped[Kind] = mapped_column(server_default="BOOK")
    about: Mapped[Any] = mapped_column(JSON, nullable=True)
    tags: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    slug: Mapped[str | None] = mapped_column(Lowered)
    source: Mapped[str] = mapped_column(default=lambda: "web")
    printed: Mapped[datetime | None] = mapped_column(default=text("now()::timestamp"))
    seen: Mapped[int] = mapped_column(default=0, onupdate=1)
    revised: Mapped[datetime | None] = mapped_column(onupdate=func.localtimestamp())


class Indexed(VectorMixin, Base):
    __tablename__ = "indexed"
    __collection__ = Collection(VectorSpec(DIMENSIONS))


Index(
    "ix_indexed_read", Indexed.updated_at, postgresql_where=text("(payload ->> 'kind') = 'novel'")
)
payload_index(Indexed.__table__, "name", "keyword")
payload_index(Indexed.__table__, "year", "integer")
payload_index(Indexed.__table__, "read", "bool")


async def _all(rows: AsyncIterator[Any]) -> None:
    async for _ in rows:
        pass


async def _twice(vectors: Any) -> None:
    await vectors.search(VECTOR, limit=1)
    await vectors.search(VECTOR, limit=1)


async def _next_page(vectors: Any, **options: Any) -> None:
    page = await vectors.scroll(limit=1, **options)
    await vectors.scroll(limit=1, after=page.next, **options)


async def _three(collection: Any) -> None:
    await collection.upsert(
        [
            {
                "id": key,
                "embedding": [1.0 + place] + [1.0] * 7,
                "payload": {"year": 1960 + place, "tags": ["sand"]},
                "document": "The desert planet",
            }
            for place, key in enumerate("abc")
        ]
    )


def _record(key: str, **fields: Any) -> dict[str, Any]:
    return {"id": key, "embedding": VECTOR, **fields}


async def _slowly(vectors: Any) -> int:
    slow = {"SLOW_SECONDS": 0.0, "SLOW_ROWS_PER_SECOND": math.inf}
    with patch.multiple(ingest, **slow):
        count: int = await vectors.ingest([_record("d")])
    return count


async def _many_deleted(vectors: Any) -> int:
    with patch.object(bulk_changes, "LARGE_DELETE", 0):
        count: int = await vectors.delete_where({"year": {"$gte": 2000}})
    return count


PAYLOAD = {"payload": {"year": 1965}}
DOCUMENT = {"document": "Spice"}

READS: Calls = {
    "dimensions": {DEFAULT: lambda v: v.dimensions()},
    "get": {
        DEFAULT: lambda v: v.get(["a", "b"]),
        "of one": lambda v: v.get(["a"]),
        "parts of payloads": lambda v: v.get(["a"], with_payload=["year", "$document"]),
    },
    "count": {
        DEFAULT: lambda v: v.count(),
        "with a filter": lambda v: v.count(where=WHERE),
        "with a filter of the document": lambda v: v.count(where_document={"$contains": "s"}),
    },
    "facet": {
        DEFAULT: lambda v: v.facet("tags"),
        "with a filter": lambda v: v.facet("tags", where=WHERE),
    },
    "aggregate": {
        DEFAULT: lambda v: v.aggregate(AGGREGATED),
        "by group, with a filter": lambda v: v.aggregate(AGGREGATED, group_by="tags", where=WHERE),
    },
    "scroll": {
        DEFAULT: lambda v: v.scroll(),
        "with embeddings": lambda v: v.scroll(with_embedding=True),
        "with a filter": lambda v: v.scroll(where=WHERE),
        "with parts of payloads": lambda v: v.scroll(with_payload=["year"]),
        "the next page": _next_page,
        "the next page, descending": lambda v: _next_page(v, descending=True),
        "by a payload's field": lambda v: v.scroll(order_by="year"),
        "the next page by a payload's field": lambda v: _next_page(v, order_by="year"),
        "the same, descending": lambda v: _next_page(v, order_by="year", descending=True),
    },
    "stream": {
        "two pages": lambda v: _all(v.stream(batch_size=2)),
        "without embeddings": lambda v: _all(v.stream(batch_size=2, with_embedding=False)),
        "with a filter": lambda v: _all(v.stream(batch_size=2, where=WHERE)),
    },
    "stream_batches": {
        "two pages": lambda v: _all(v.stream_batches(batch_size=2)),
        "with a filter": lambda v: _all(v.stream_batches(batch_size=2, where=WHERE)),
    },
}

SEARCHES: Calls = {
    "search": {
        DEFAULT: lambda v: v.search(VECTOR),
        "once the index has found enough": _twice,
        "with a filter that an index serves": lambda v: v.search(VECTOR, where=WHERE),
        "with a filter that none serves": lambda v: v.search(VECTOR, where={"year": {"$gt": 1}}),
        'with complete="never"': lambda v: v.search(VECTOR, complete="never"),
        'with a filter and complete="auto"': lambda v: v.search(
            VECTOR, where=WHERE, complete="auto"
        ),
        "with a limit above 40": lambda v: v.search(VECTOR, limit=41),
        "with ef_search": lambda v: v.search(VECTOR, ef_search=100),
        "with iterative_scan": lambda v: v.search(VECTOR, iterative_scan="off"),
        "with probes": lambda v: v.search(VECTOR, probes=2),
        "with probes and a filter": lambda v: v.search(VECTOR, probes=2, where=WHERE),
        "exact": lambda v: v.search(VECTOR, exact=True),
        "exact, with a filter": lambda v: v.search(VECTOR, exact=True, where=WHERE),
        "with min_score": lambda v: v.search(VECTOR, min_score=0.5),
        "with an offset": lambda v: v.search(VECTOR, offset=1),
        "with embeddings": lambda v: v.search(VECTOR, with_embedding=True),
        "without payloads": lambda v: v.search(VECTOR, with_payload=False),
        "with parts of payloads": lambda v: v.search(VECTOR, with_payload=["year", "by.whom"]),
        "with boosts": lambda v: v.search(
            VECTOR,
            boost=[
                Factor(),
                FieldBoost("likes", 0.1),
                ValueBoost("kind", {"novel": 0.2}),
                RecencyBoost("at", timedelta(days=30)),
            ],
        ),
    },
    "search_many": {
        "for two queries": lambda v: v.search_many([VECTOR, OTHER]),
        'with complete="never"': lambda v: v.search_many([VECTOR, OTHER], complete="never"),
        "with a filter": lambda v: v.search_many([VECTOR, OTHER], where=WHERE),
        "each with a filter of its own": lambda v: v.search_many(
            [VECTOR, OTHER], where=[WHERE, None]
        ),
        "exact": lambda v: v.search_many([VECTOR, OTHER], exact=True),
    },
    "multi_search": {
        "for two queries": lambda v: v.multi_search([VECTOR, OTHER]),
        "with a filter": lambda v: v.multi_search([VECTOR, OTHER], where=WHERE),
        "exact": lambda v: v.multi_search([VECTOR, OTHER], exact=True),
        "by count and mean score": lambda v: v.multi_search([VECTOR, OTHER], rank="count"),
    },
    "hybrid_search": {
        "by meaning and words": lambda v: v.hybrid_search(VECTOR, "desert"),
        "by meaning and words, by scores": lambda v: v.hybrid_search(VECTOR, "desert", alpha=0.5),
        "by meaning and words, by the distribution of scores": lambda v: v.hybrid_search(
            VECTOR, "desert", fusion="dbsf"
        ),
        "by words alone": lambda v: v.hybrid_search(None, "desert"),
        "by meaning and all words": lambda v: v.hybrid_search(VECTOR, "desert", match="all"),
        "by all words alone": lambda v: v.hybrid_search(None, "desert", match="all"),
        "as a web search with an exclusion": lambda v: v.hybrid_search(
            VECTOR, "desert -sand", match="websearch"
        ),
        "by BM25, where words were not counted": lambda v: v.hybrid_search(
            None, "desert", rank="bm25"
        ),
        "by meaning alone": lambda v: v.hybrid_search(VECTOR),
        "with a filter": lambda v: v.hybrid_search(VECTOR, "desert", where=WHERE),
        "exact": lambda v: v.hybrid_search(VECTOR, "desert", exact=True),
    },
    "recommend": {
        DEFAULT: lambda v: v.recommend(["a"], ["b"]),
        "with a filter": lambda v: v.recommend([VECTOR], where=WHERE),
        "exact": lambda v: v.recommend(["a"], exact=True),
        "by the best score, of two": lambda v: v.recommend(["a", "b"], strategy="best_score"),
        "the same, with a filter": lambda v: v.recommend(
            ["a", "b"], strategy="best_score", where=WHERE
        ),
        "the same, exact": lambda v: v.recommend(["a", "b"], strategy="best_score", exact=True),
    },
    "range_search": {
        DEFAULT: lambda v: v.range_search(VECTOR, min_score=0.5),
        "with a filter": lambda v: v.range_search(VECTOR, min_score=0.5, where=WHERE),
    },
    "stream_search": {
        "two pages": lambda v: _all(v.stream_search(VECTOR, batch_size=2)),
        "with a filter": lambda v: _all(v.stream_search(VECTOR, batch_size=2, where=WHERE)),
    },
    "mmr_search": {DEFAULT: lambda v: v.mmr_search(VECTOR, fetch_limit=40)},
    "search_groups": {
        DEFAULT: lambda v: v.search_groups(VECTOR, "year"),
        "with a filter": lambda v: v.search_groups(VECTOR, "year", where=WHERE),
        "exact": lambda v: v.search_groups(VECTOR, "year", exact=True),
    },
    "explain": {
        DEFAULT: lambda v: v.explain(VECTOR),
        "with a filter": lambda v: v.explain(VECTOR, where=WHERE),
    },
    "recall_probe": {DEFAULT: lambda v: v.recall_probe(sample=1)},
    "tune": {DEFAULT: lambda v: v.tune(sample=1)},
    "recommend_index": {DEFAULT: lambda v: v.recommend_index()},
    "word_statistics": {DEFAULT: lambda v: v.word_statistics()},
}


async def _searched_by_bm25(vectors: Any, **options: Any) -> object:
    await vectors.count_words()
    return await vectors.hybrid_search(None, "desert", **options)


WRITES: Calls = {
    "upsert": {
        "embeddings alone": lambda v: v.upsert([_record("d")]),
        "payloads of all records": lambda v: v.upsert([_record("d", **PAYLOAD)]),
        "payloads of some": lambda v: v.upsert([_record("d", **PAYLOAD), _record("e")]),
        "documents of all": lambda v: v.upsert([_record("d", **DOCUMENT)]),
        "documents of some": lambda v: v.upsert([_record("d", **DOCUMENT), _record("e")]),
        "payloads and documents of all": lambda v: v.upsert([_record("d", **PAYLOAD, **DOCUMENT)]),
        "embeddings of some": lambda v: v.upsert([_record("d"), {"id": "e", "embedding": None}]),
    },
    "upsert_with_zeros": {DEFAULT: lambda v: v.upsert_with_zeros([_record("d")])},
    "insert": {
        "payloads of all records": lambda v: v.insert([_record("d", **PAYLOAD)]),
        "payloads of some": lambda v: v.insert([_record("d", **PAYLOAD), _record("e")]),
    },
    "update_many": {
        "payloads of all records": lambda v: v.update_many([{"id": "d", **PAYLOAD}]),
        "each its own": lambda v: v.update_many(
            [_record("d"), {"id": "e", **PAYLOAD}, {"id": "f", **DOCUMENT}]
        ),
    },
    "ingest": {
        DEFAULT: lambda v: v.ingest([_record("d")]),
        "after the first slow batch": _slowly,
    },
    "fill_words": {DEFAULT: lambda v: v.fill_words()},
    "count_words": {
        DEFAULT: lambda v: v.count_words(),
        "and by BM25 what is searched then": _searched_by_bm25,
        "and all words of that": lambda v: _searched_by_bm25(v, match="all"),
    },
    "update": {
        "an embedding": lambda v: v.update("d", embedding=OTHER),
        "a payload": lambda v: v.update("d", **PAYLOAD),
        "a document": lambda v: v.update("d", **DOCUMENT),
        "all three": lambda v: v.update("d", embedding=OTHER, **PAYLOAD, **DOCUMENT),
    },
    "merge_payload": {
        "by ids": lambda v: v.merge_payload({"read": True}, ids=["d"]),
        "by ids, and a path taken out": lambda v: v.merge_payload(
            {"read": True}, remove=["year"], ids=["d"]
        ),
        "by ids, deeper than a key": lambda v: v.merge_payload({"by.whom": "me"}, ids=["d"]),
        "by a filter": lambda v: v.merge_payload({"read": True}, where=WHERE),
        "by a filter, and a path taken out": lambda v: v.merge_payload(
            remove=["year"], where=WHERE
        ),
        "in batches": lambda v: v.merge_payload({"read": 1}, where=EACH, batch_size=1),
        "in batches, to be resumed": lambda v: v.merge_payload(
            {"read": 2}, where=EACH, batch_size=1, resume=f"merge {next(_n)}"
        ),
    },
    "rotate_keys": {"where nothing is encrypted": lambda v: v.rotate_keys()},
    "delete": {DEFAULT: lambda v: v.delete(["d", "e"])},
    "delete_where": {
        DEFAULT: lambda v: v.delete_where({"year": {"$gte": 2000}}),
        "of many rows": _many_deleted,
        "in batches": lambda v: v.delete_where({"year": {"$gte": 2000}}, batch_size=10),
    },
    "delete_all": {
        DEFAULT: lambda v: v.delete_all(),
        "in batches, to be resumed": lambda v: v.delete_all(
            batch_size=10, resume=f"delete {next(_n)}"
        ),
    },
}


def _only(calls: Calls, **forms: str | tuple[str, ...]) -> dict[str, dict[str, Call]]:
    """Some of the forms."""
    return {
        method: {form: calls[method][form] for form in ((named,) if type(named) is str else named)}
        for method, named in forms.items()
    }


def _first(calls: Calls) -> dict[str, dict[str, Call]]:
    """The first form of each method."""
    return {method: dict([next(iter(forms.items()))]) for method, forms in calls.items()}


QUANTIZED = _only(
    SEARCHES,
    search=(DEFAULT, "with a filter that an index serves", "exact"),
    search_many="for two queries",
    multi_search="for two queries",
    hybrid_search="by meaning and words",
    recommend=(DEFAULT, "by the best score, of two"),
    search_groups=DEFAULT,
    range_search=DEFAULT,
)
OF_BITS = _only(
    SEARCHES,
    search=(DEFAULT, "with a filter that an index serves", "exact"),
    search_many="for two queries",
    recommend=DEFAULT,
)
BY_ANOTHER_METRIC = _only(
    SEARCHES,
    search=(DEFAULT, "exact"),
    recommend=(DEFAULT, "by the best score, of two"),
    range_search=DEFAULT,
)
NAMESPACED = {
    **_first(READS),
    **_first(SEARCHES),
    "recommend": SEARCHES["recommend"],
    **_first(WRITES),
    **_only(WRITES, merge_payload=("by ids", "by a filter")),
}
NAMESPACED.pop("count_words")  # of the table, and what is searched next would be so by BM25
OF_ANOTHER_NAMESPACE = {
    method: NAMESPACED[method]
    for method in (
        *("get", "search", "hybrid_search", "upsert", "insert", "update", "update_many"),
        *("merge_payload", "delete"),
    )
}

ATTRIBUTES = {
    "author": "Ada",
    "kind": Kind.PAPER,
    "about": {"pages": 3},
    "tags": ["a", "b"],
    "slug": "Dune",
    "source": "book",
    "printed": datetime(2025, 1, 1),  # noqa: DTZ001 - the column has no time zone
    "seen": 2,
    "revised": datetime(2025, 1, 1),  # noqa: DTZ001
}
PLAIN = {name: value for name, value in ATTRIBUTES.items() if name != "slug"}
FURTHER = {"title": [1.0, 0.0, 0.0, 0.0], "words": SPARSE}

OF_A_HOST: Calls = {
    **_only(READS, get=DEFAULT, scroll=(DEFAULT, "with embeddings")),
    "facet": {"of a column": lambda v: v.facet("author")},
    "aggregate": {
        "of columns": lambda v: v.aggregate(
            {Article.seen: ["sum"], "printed": ["max"]}, group_by="author"
        ),
    },
    "stream": {DEFAULT: lambda v: _all(v.stream())},
    "stream_batches": {
        "of a further vector of half precision": lambda v: _all(v.stream_batches(using="title"))
    },
    "search": {
        DEFAULT: lambda v: v.search(VECTOR),
        "with embeddings": lambda v: v.search(VECTOR, with_embedding=True),
        "without payloads": lambda v: v.search(VECTOR, with_payload=False),
        "with an expression of SQLAlchemy's": lambda v: v.search(
            VECTOR, where=Article.author == "Ada"
        ),
        "with columns of a host's own": lambda v: v.search(
            VECTOR, with_payload=["author", Article.printed, "year"]
        ),
        "by the beginnings of a column": lambda v: v.search(
            VECTOR, where={"author": {"$prefix": "A"}}
        ),
        "by columns of a host's own": lambda v: v.search(
            VECTOR,
            where={
                "author": {"$in": ["Ada", None]},
                "kind": Kind.PAPER,
                "tags": {"$contains": "a"},
                "slug": "Dune",
                "seen": {"$gte": 1},
            },
        ),
        "by a further vector of half precision": lambda v: v.search(
            FURTHER["title"], using="title"
        ),
        "by a sparse vector": lambda v: v.search(SparseVector(SPARSE, 30), using="words"),
        "by a sparse vector, with embeddings": lambda v: v.search(
            SparseVector(SPARSE, 30), using="words", with_embedding=True
        ),
    },
    "search_groups": {
        "by a column of a host's own": lambda v: v.search_groups(VECTOR, Article.author)
    },
    "recommend": {
        "by a sparse vector": lambda v: v.recommend([SparseVector(SPARSE, 30)], using="words")
    },
    "hybrid_search": {
        "by meaning and a sparse vector": lambda v: v.hybrid_search(VECTOR, sparse=SPARSE),
        "by two dense vectors, one under a filter of its own": lambda v: v.hybrid_search(
            [VECTOR, FURTHER["title"]],
            using=("vec", "title"),
            branch_where={"dense:title": {"year": 1965}},
        ),
        "by all three": lambda v: v.hybrid_search(VECTOR, "desert", sparse=SPARSE),
        "by all three, by scores": lambda v: v.hybrid_search(
            VECTOR, "desert", sparse=SPARSE, alpha=0.5
        ),
        "by a sparse vector alone": lambda v: v.hybrid_search(None, sparse=SPARSE),
    },
    "upsert": {
        "without any": lambda v: v.upsert([_record("d")]),
        "all attributes, of all records": lambda v: v.upsert([_record("d", attributes=ATTRIBUTES)]),
        "all attributes, of some records": lambda v: v.upsert(
            [_record("d", attributes=ATTRIBUTES), _record("e")]
        ),
        "further vectors of all records": lambda v: v.upsert([_record("d", vectors=FURTHER)]),
        "further vectors of some": lambda v: v.upsert(
            [_record("d", vectors=FURTHER), _record("e")]
        ),
    },
    "update_many": {
        "further vectors and attributes of some": lambda v: v.update_many(
            [{"id": "d", "vectors": FURTHER, "attributes": PLAIN}, {"id": "e", **PAYLOAD}]
        )
    },
    "update": {
        "further vectors": lambda v: v.update("d", vectors=FURTHER),
        "attributes": lambda v: v.update("d", attributes=ATTRIBUTES),
    },
    "merge_payload": {"by ids": lambda v: v.merge_payload({"read": True}, ids=["d"])},
}

BARE: Calls = {
    **_first(_only(READS, get=DEFAULT, count=DEFAULT, scroll=DEFAULT)),
    **_first(_only(SEARCHES, search=DEFAULT)),
    **_first(_only(WRITES, upsert="embeddings alone", update="an embedding", delete=DEFAULT)),
}

FACTORS: Calls = {
    "load": {DEFAULT: lambda f: f.load()},
    "get": {DEFAULT: lambda f: f.get(["a"])},
    "save": {DEFAULT: lambda f: f.save({"a": 1.0})},
    "adjust": {
        DEFAULT: lambda f: f.adjust({"a": "accepted"}),
        "once": lambda f: f.adjust({"a": "accepted"}, idempotency_key=f"adjust {next(_n)}"),
        "with a half-life": lambda f: f.adjust({"a": "rejected"}, half_life=60),
    },
    "decay": {
        "all": lambda f: f.decay(half_life=60),
        "some": lambda f: f.decay(half_life=60, node_ids=["a"]),
        "in batches": lambda f: f.decay(half_life=60, batch_size=1),
    },
    "changes": {DEFAULT: lambda f: f.changes()},
    "weight_seeds": {DEFAULT: lambda f: f.weight_seeds(["a"])},
    "summary": {DEFAULT: lambda f: f.summary()},
    "delete": {DEFAULT: lambda f: f.delete(["a"])},
}


async def _record_too_much(edges: Any) -> None:
    await edges.save({("f", "g"): EdgeStats(MAX_INT4)})
    with suppress(CounterOverflowError):
        await edges.record_many([("f", "g", 0.5)])


EDGES: Calls = {
    "load": {DEFAULT: lambda e: e.load()},
    "get": {DEFAULT: lambda e: e.get("a", "b")},
    "save": {DEFAULT: lambda e: e.save({("a", "b"): EdgeStats(1, [0.5])})},
    "record": {
        DEFAULT: lambda e: e.record("a", "b", score=0.5),
        "once": lambda e: e.record("a", "b", score=0.5, idempotency_key=f"record {next(_n)}"),
    },
    "record_many": {
        DEFAULT: lambda e: e.record_many([("a", "b", 0.5), ("b", "c", 0.5)]),
        "of an edge whose counter is full": _record_too_much,
    },
    "promote": {
        DEFAULT: lambda e: e.promote(),
        "with a limit": lambda e: e.promote(limit=1),
    },
    "summary": {DEFAULT: lambda e: e.summary()},
    "remove": {DEFAULT: lambda e: e.remove([("a", "b")])},
}


def _model(texts: list[str]) -> list[list[float]]:
    return [VECTOR for _ in texts]


@asynccontextmanager
async def _beside(db: Database) -> AsyncIterator[AsyncConnection]:
    """A transaction of the host's own, where the database's tables are."""
    schema = db.executor.schema_of(None)
    async with db.engine.begin() as connection:
        await connection.execution_options(schema_translate_map={None: schema})
        if schema is not None:
            await connection.execute(text(f'SET LOCAL search_path = "{schema}", public'))
        yield connection


async def _unused(db: Database) -> None:
    """A text that nobody asked for in the last hour."""
    await db.embeddings.embed(["old"], model=_model, name="m")
    async with _beside(db) as connection:
        longer_ago = datetime.now(UTC) - timedelta(hours=2)
        await connection.execute(update(CachedEmbedding).values(last_used=longer_ago))


EMBEDDINGS: Calls = {
    "embed": {
        "a new text": lambda c: c.embed(["new"], model=_model, name="m"),
        "a known text, unused for an hour": lambda c: c.embed(["old"], model=_model, name="m"),
    },
    "stats": {DEFAULT: lambda c: c.stats()},
    "clear": {
        "one model": lambda c: c.clear("m"),
        "all": lambda c: c.clear(),
    },
}

CONTEXT = {"task": "code"}


def _which(method: str, **options: Any) -> dict[str, Call]:
    """A change of arms by whether ids and a context are named."""

    def of(*arguments: Any, **also: Any) -> Call:
        return lambda arms: getattr(arms, method)("l", *arguments, **options, **also)

    one: Any = "a" if method == "decay" else ["a"]
    return {
        "all arms of a context": of(),
        "some of a context": of(one),
        "all of every context": of(context=ALL_CONTEXTS),
        "some of every context": of(one, context=ALL_CONTEXTS),
    }


ARMS: Calls = {
    "get": {DEFAULT: lambda a: a.get("l", "a")},
    "get_all": {
        DEFAULT: lambda a: a.get_all("l"),
        "named ones": lambda a: a.get_all("l", ["a"]),
    },
    "get_all_states": {DEFAULT: lambda a: a.get_all_states("l")},
    "top": {DEFAULT: lambda a: a.top("l")},
    "posteriors": {
        DEFAULT: lambda a: a.posteriors("l"),
        "named ones": lambda a: a.posteriors("l", ["a"]),
    },
    "metrics": {DEFAULT: lambda a: a.metrics("l")},
    "contexts": {DEFAULT: lambda a: a.contexts("l")},
    "read_contexts": {DEFAULT: lambda a: a.read_contexts("l")},
    "rebuild": {DEFAULT: lambda a: a.rebuild("l")},
    "select": {DEFAULT: lambda a: a.select("l", ["a", "b"])},
    "observe": {
        DEFAULT: lambda a: a.observe("l", "a", reward=1.0, context=CONTEXT),
        "once": lambda a: a.observe("l", "a", reward=1.0, idempotency_key=f"observe {next(_n)}"),
    },
    "observe_many": {DEFAULT: lambda a: a.observe_many("l", [("a", 1.0), ("b", 0.0)])},
    "apply_deltas": {
        "to one arm": lambda a: a.apply_deltas("l", {"a": (0.5, -0.5)}),
        "once": lambda a: a.apply_deltas(
            "l", {"a": (0.5, -0.5)}, idempotency_key=f"deltas {next(_n)}"
        ),
        "to several": lambda a: a.apply_deltas("l", {"a": (0.5, -0.5), "b": (0.5, 0)}),
    },
    "put": {DEFAULT: lambda a: a.put("l", "a", ArmState(1.0, 1.0))},
    "seed": {
        DEFAULT: lambda a: a.seed("l", ["a", "s"]),
        "as qortex does": lambda a: a.seed("l", ["a", "t"], unpulled=True),
    },
    "decay": {
        **_which("decay"),
        "by a half-life": lambda a: a.decay("l", half_life=60),
        "in batches": lambda a: a.decay("l", batch_size=1, resume=f"decay {next(_n)}"),
        "in batches, of all contexts": lambda a: a.decay(
            "l", context=ALL_CONTEXTS, batch_size=1, resume=f"decay {next(_n)}"
        ),
    },
    "reset": _which("reset"),
    "delete": _which("delete"),
}
CHANGES: Calls = {
    method: ARMS[method]
    for method in (
        *("select", "observe", "observe_many", "apply_deltas", "put", "seed", "decay", "reset"),
        "delete",
    )
}


async def _claim_twice(idempotency: Any) -> None:
    key = f"twice {next(_n)}"
    await idempotency.claim(key)
    await idempotency.claim(key)


async def _advance(checkpoints: Any) -> None:
    so_far = await checkpoints.begin("an import", anew=True)
    await checkpoints.advance(so_far, {"after": "a"}, read=5, written=4, rejected=1)


async def _in_clear(db: Database) -> None:
    """A row from before the collection was encrypted."""
    async with _beside(db) as connection:
        row = {"id": "a", "embedding": VECTOR, "payload": {"secret": 1}, "document": "Spice"}
        await connection.execute(delete(Sealed))
        await connection.execute(insert(Sealed), row)


async def _in_two_models(db: Database) -> None:
    """Rows that lack the new embeddings, of a table that has both for an hour."""
    begun = """
    INSERT INTO qortex_db_changeovers (table_name, column_name, old_name, new_name, metric,
        storage, began_at)
    SELECT n.nspname::text || '.changing'::text, 'vec', 'old', 'v2', 'cosine', 'full',
        pg_catalog.now() - '1 hour'::interval
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = pg_catalog.to_regclass('changing'::text)::oid ON CONFLICT DO NOTHING
    """
    row = "INSERT INTO changing (id, vec, document) VALUES ('a', '[1,1,1,1,1,1,1,1]', 'Spice')"
    async with _beside(db) as connection:
        await connection.execute(text(begun.replace(":", r"\:")))
        await connection.execute(text("DELETE FROM changing"))
        await connection.execute(text("UPDATE qortex_db_changeovers SET is_switched = false"))
        await connection.execute(text(row))


async def _closing(vectors: Any) -> None:
    with suppress(ConflictError):  # which says so
        await vectors.switch_to("v2", closing=True)
    await vectors.reembed(Embedder(_model, name="m"), into="v2")


SECTIONS = (
    Section(
        "Vectors",
        "vectors",
        "The default collection, `qortex_vectors`. Those of a model of yours are the same over\n"
        "its table, but for what the sections after this one show.",
        lambda repositories: repositories.vectors,
        {**READS, **SEARCHES, **WRITES},
        lambda db: _three(db.vectors),
    ),
    Section(
        "An index of half precision",
        "halved",
        '`VectorSpec(8, quantization="half")`.',
        lambda repositories: repositories.collection(Halved),
        QUANTIZED,
        lambda db: _three(db.collection(Halved)),
    ),
    Section(
        "An index of single bits",
        "bits",
        '`VectorSpec(8, quantization="binary")`.',
        lambda repositories: repositories.collection(Bits),
        OF_BITS,
        lambda db: _three(db.collection(Bits)),
    ),
    Section(
        "Half storage, by l2",
        "half_stored",
        '`VectorSpec(8, "l2", "half")`.',
        lambda repositories: repositories.collection(HalfStored),
        {
            **BY_ANOTHER_METRIC,
            **_only(READS, get=DEFAULT),
            **_only(WRITES, upsert="embeddings alone", update="an embedding"),
        },
        lambda db: _three(db.collection(HalfStored)),
    ),
    Section(
        "An IVFFlat index, by inner product",
        "lists",
        '`VectorSpec(8, "inner_product", index=IVFFlat(lists=1))`, documents in `english`.',
        lambda repositories: repositories.collection(Lists),
        {
            **BY_ANOTHER_METRIC,
            "search": {
                **BY_ANOTHER_METRIC["search"],
                **_only(SEARCHES, search="with probes")["search"],
            },
            **_only(SEARCHES, hybrid_search="by meaning and words"),
        },
        lambda db: _three(db.collection(Lists)),
    ),
    Section(
        "Stored words",
        "worded",
        '`Collection(VectorSpec(8), text="english")`.',
        lambda repositories: repositories.collection(Worded),
        {
            **_only(
                SEARCHES,
                hybrid_search=("by meaning and words", "by words alone", "by all words alone"),
            ),
            "count": {"by words": lambda v: v.count(where={"$text": "desert"})},
            **_only(WRITES, count_words=("and by BM25 what is searched then",)),
        },
        lambda db: _three(db.collection(Worded)),
    ),
    Section(
        "By l1",
        "taxicab",
        '`VectorSpec(8, "l1")`.',
        lambda repositories: repositories.collection(Taxicab),
        _only(SEARCHES, search=(DEFAULT, "exact")),
        lambda db: _three(db.collection(Taxicab)),
    ),
    Section(
        "Further vectors and the host's own columns",
        "articles",
        "`title` is a vector of half precision, `words` a sparse one. Of the other columns `kind`\n"
        "has a default of the server's, `source` one made in Python, `printed` one in SQL; `seen`\n"
        "and `revised` have an `onupdate` of each kind, `slug` a type with SQL of its own.",
        lambda repositories: repositories.collection(Article),
        OF_A_HOST,
        lambda db: _three(db.collection(Article)),
    ),
    Section(
        "A table of vectors alone",
        "bare",
        "A model with `id` and `vec`, and no more.",
        lambda repositories: repositories.collection(Bare),
        BARE,
        lambda db: db.collection(Bare).upsert([_record("a"), _record("b")]),
    ),
    Section(
        "Keys that the server makes",
        "numbered",
        "Of records without ids.",
        lambda repositories: repositories.collection(Numbered),
        {"insert": {"without ids": lambda v: v.insert([{"embedding": VECTOR}])}},
        lambda db: db.collection(Numbered).upsert([{"id": 7, "embedding": VECTOR}]),
    ),
    Section(
        "Partitions",
        "parted",
        "`Collection(VectorSpec(8), partitions=Partitions(2))`: the sample is of both.",
        lambda repositories: repositories.collection(Parted),
        _only(SEARCHES, search="with a filter that an index serves"),
        lambda db: _three(db.collection(Parted)),
    ),
    Section(
        "A namespace in the key",
        "mails",
        'By `collection(Mail, namespace="one")`, of a\n'
        '`Collection(VectorSpec(8), namespace="tenant", namespace_in_key=True)`.',
        lambda repositories: repositories.collection(Mail, namespace="one"),
        NAMESPACED,
        lambda db: _three(db.collection(Mail, namespace="one")),
    ),
    Section(
        "A large namespace",
        "acme",
        'The same, of a tenant in `large_namespaces=("acme",)`: its name is in the text, so that\n'
        "the index on its rows alone serves it.",
        lambda repositories: repositories.collection(Mail, namespace="acme"),
        OF_ANOTHER_NAMESPACE,
        lambda db: _three(db.collection(Mail, namespace="acme")),
    ),
    Section(
        "A namespace beside the key",
        "messages",
        'By `collection(Message, namespace="one")`, without `namespace_in_key`.\n'
        "By `ALL_NAMESPACES` it is about all rows, as `vectors`.",
        lambda repositories: repositories.collection(Message, namespace="one"),
        OF_ANOTHER_NAMESPACE,
        lambda db: _three(db.collection(Message, namespace="one")),
    ),
    Section(
        "Encrypted values",
        "sealed",
        '`Collection(VectorSpec(8), encrypted=("secret",), encrypted_document=True)`: what is\n'
        "encrypted is a parameter or a result, and the other statements are the same.",
        lambda repositories: repositories.collection(Sealed),
        {
            "rotate_keys": {DEFAULT: lambda v: v.rotate_keys()},
            **_only(READS, get=DEFAULT, count="with a filter"),
            **_only(SEARCHES, search=DEFAULT),
            **_only(WRITES, upsert="payloads and documents of all"),
        },
        _in_clear,
    ),
    Section(
        "Two models",
        "vectors",
        "A table to which `op.add_embedding_column` gave a second column of embeddings, `v2`.\n"
        "First it is looked up how far it is.",
        lambda repositories: repositories.collection(Changing),
        {
            "changeover": {DEFAULT: lambda v: v.changeover()},
            "switch_to": {
                "closing, while rows lack them": _closing,
                DEFAULT: lambda v: v.switch_to("v2"),
                "and back": lambda v: v.switch_to("old"),
            },
            "reembed": {
                DEFAULT: lambda v: v.reembed(Embedder(_model, name="m"), into="v2"),
                "with a filter": lambda v: v.reembed(
                    Embedder(_model, name="m"), into="v2", where={"$id": ["b"]}
                ),
            },
        },
        _in_two_models,
    ),
    Section("Factors", "factors", "", lambda repositories: repositories.factors, FACTORS),
    Section("Edges", "edges", "", lambda repositories: repositories.edges, EDGES),
    Section(
        "Embeddings",
        "embeddings",
        "",
        lambda repositories: repositories.embeddings,
        EMBEDDINGS,
        _unused,
    ),
    Section("Arms", "arms", "", lambda repositories: repositories.arms, ARMS),
    Section(
        "Idempotency keys",
        "idempotency",
        "A key that is there already is looked up, to see that it is of the same call.",
        lambda repositories: repositories.idempotency,
        {
            "claim": {
                "a new key": lambda i: i.claim(f"new {next(_n)}"),
                "a key that is there": _claim_twice,
            },
            "prune": {DEFAULT: lambda i: i.prune()},
        },
    ),
    Section(
        "Checkpoints",
        "checkpoints",
        "How far an import, or other long work, is; in the transaction of each of its batches.",
        lambda repositories: CheckpointRepository(repositories.executor),
        {
            "begin": {DEFAULT: lambda c: c.begin("an import")},
            "advance": {DEFAULT: _advance},
        },
    ),
    Section(
        "Indexed documents",
        "indexed_documents",
        "What LangChain's record manager runs.",
        lambda repositories: IndexedDocumentRepository(
            repositories.executor.of(IndexedDocument), "articles"
        ),
        {
            "clock": {DEFAULT: lambda d: d.clock()},
            "record": {
                DEFAULT: lambda d: d.record(["a", "b"]),
                "with groups": lambda d: d.record(["a"], groups=["file"], at_least=1.0),
            },
            "exist": {DEFAULT: lambda d: d.exist(["a", "c"])},
            "keys": {
                DEFAULT: lambda d: d.keys(),
                "with everything": lambda d: d.keys(before=2e9, after=1, groups=["f"], limit=9),
            },
            "forget": {DEFAULT: lambda d: d.forget(["a", "b"])},
        },
    ),
    Section(
        "Arms and their history",
        "arms",
        "The changes where `QORTEX_LEARNING_HISTORY` is on; the reads are the same.",
        lambda repositories: repositories.arms,
        CHANGES,
        history=True,
    ),
)

FILTERS: Mapping[str, Any] = {
    "`$eq`": {"x": {"$eq": 1}},
    "`$eq` of None": {"x": None},
    "`$eq` of an object": {"x": {"$eq": {"a": 1}}},
    "`$eq` at a position": {"x.0": 1},
    "`$ne`": {"x": {"$ne": 1}},
    "`$in`": {"x": {"$in": [1, 2]}},
    "`$in` with None": {"x": {"$in": [1, None]}},
    "`$in` of nothing": {"x": {"$in": []}},
    "`$in` of a hundred or more": {"x": {"$in": list(range(100))}},
    "`$in` at a position": {"x.0": {"$in": [1, 2]}},
    "`$nin`": {"x": {"$nin": [1, 2]}},
    "`$gt` of a number": {"x": {"$gt": 1}},
    "`$gte` of a number": {"x": {"$gte": 1}},
    "`$lt` of a number": {"x": {"$lt": 1}},
    "`$lte` of a number": {"x": {"$lte": 1}},
    "`$gt` of a string": {"x": {"$gt": "a"}},
    "`$gt` of a string of 200 characters or more": {"x": {"$gt": "a" * 200}},
    "`$between`": {"x": {"$between": [1, 2]}},
    "`$eq` of a moment": {"x": datetime(2025, 1, 31, tzinfo=UTC)},
    "`$in` with moments": {"x": {"$in": [datetime(2025, 1, 31, tzinfo=UTC), "never"]}},
    "`$gt` of a moment": {"x": {"$gt": datetime(2025, 1, 31, tzinfo=UTC)}},
    "`$any` with moments": {"x": {"$any": [datetime(2025, 1, 31, tzinfo=UTC), "never"]}},
    "`$all` with moments": {"x": {"$all": [datetime(2025, 1, 31, tzinfo=UTC), "never"]}},
    "`$exists`": {"x": {"$exists": True}},
    "`$exists`, the contrary": {"x": {"$exists": False}},
    "`$contains` of a string": {"x": {"$contains": "a"}},
    "`$contains` of a number": {"x": {"$contains": 1}},
    "`$any`": {"x": {"$any": ["a", "b"]}},
    "`$any` with an object": {"x": {"$any": [{"a": 1}]}},
    "`$any` at a position": {"x.0": {"$any": ["a"]}},
    "`$all`": {"x": {"$all": ["a", "b"]}},
    "`$all` with an object": {"x": {"$all": [{"a": 1}]}},
    "`$all` at a position": {"x.0": {"$all": ["a"]}},
    "`$like`": {"x": {"$like": "%a"}},
    "`$like` of a beginning": {"x": {"$like": "a%"}},
    "`$ilike`": {"x": {"$ilike": "A%"}},
    "`$prefix`": {"x": {"$prefix": "a"}},
    "`$regex`": {"x": {"$regex": "a+"}},
    "`$regex` with a beginning": {"x": {"$regex": "^a+b"}},
    "`$elemMatch`": {"x": {"$elemMatch": {"y": 1, "z": {"$gt": 2}}}},
    "an element, by equality": {"x[].y": 1},
    "elements themselves": {"x[]": {"$gt": 1}},
    "`$any` of a hundred or more": {"x": {"$any": list(range(100))}},
    "`$text`": {"x": {"$text": "red"}},
    "`$text` in a language": {"x": {"$text": {"$search": "red", "$language": "english"}}},
    "`$text` of the document": {"$text": "red"},
    "`$geo`, a radius": {"x": {"$geo": {"lat": 52.5, "lon": 13.4, "radius_m": 1000}}},
    "`$geo`, a box": {"x": {"$geo": {"min_lat": 50, "max_lat": 53, "min_lon": 10, "max_lon": 15}}},
    "`$geo`, a box across the antimeridian": {
        "x": {"$geo": {"min_lat": -9, "max_lat": 9, "min_lon": 170, "max_lon": -170}}
    },
    "`$geo`, a polygon": {
        "x": {"$geo": {"exterior": [{"lat": 0, "lon": i} for i in range(3)]}},
    },
    "`$size`": {"x": {"$size": 2}},
    "`$size` within bounds": {"x": {"$size": {"$gte": 1, "$lt": 5}}},
    "`$id`": {"$id": ["a", "b"]},
    "`$document`, `$contains`": {"$document": {"$contains": "red"}},
    "`$document`, `$not_contains`": {"$document": {"$not_contains": "red"}},
    "`$not`": {"$not": {"x": 1}},
    "`$not` around operators": {"x": {"$not": {"$gte": 1}}},
    "`$and`, and several keys": {"$and": [{"x": 1}, {"y": 2}]},
    "`$or`": {"$or": [{"x": 1}, {"y": 2}]},
    "`$nor`": {"$nor": [{"x": 1}, {"y": 2}]},
    "`$min_should`": {
        "$min_should": {"conditions": [{"x": 1}, {"y": 2}, {"z": 3}], "min_count": 2}
    },
    "an empty filter": {},
    "a nested path": {"x.y": {"$gt": 1}},
    "an expression of SQLAlchemy's": QortexVector.id.like("a%"),
}
"""The filters that are shown, by what they show."""

INDEXED_FILTERS: Mapping[str, Any] = {
    "`$eq` of a string, where a `keyword` index is declared": {"name": "a"},
    "`$eq` of a string of 200 characters or more, the same": {"name": "a" * 200},
    "`$in` of strings, the same": {"name": {"$in": ["a", "b"]}},
    "`$eq` of a number, where an `integer` index is declared": {"year": 1},
    "`$in` of numbers, the same": {"year": {"$in": [1, 2]}},
    "`$eq` of a bool, where a `bool` index is declared": {"read": True},
    "`$prefix`, where a `keyword` index is declared": {"name": {"$prefix": "a"}},
    "`$eq`, where a partial index is declared of such rows": {"kind": "novel"},
}
