"""Embeddings of texts, each computed once: a cache in the database, shared by all processes."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qortex_db import checks, types
from qortex_db.errors import DimensionMismatchError, InvalidInputError
from qortex_db.limits import DEFAULT_LIMITS, Limits
from qortex_db.models import CachedEmbedding
from qortex_db.observability import Subject, call_theirs, metrics, observed
from qortex_db.repositories import validation
from qortex_db.repositories.embedding_cache import statements
from qortex_db.repositories.validation import MAX_LIMIT
from qortex_db.types import EmbeddingInput

if TYPE_CHECKING:
    from qortex_db.engine import Executor

MAX_CACHED: Final = 1_000_000
"""How many embeddings the cache keeps unless told otherwise."""

_GROUP_ROWS: Final = 32  # as many as a new row is compared with; more come nearer to exact LRU
_LOOKUP_ROWS: Final = 10_000
_CLEAR_ROWS: Final = 5_000
_STALE_AFTER: Final = timedelta(hours=1)  # a hit writes no more often

Embeddings: TypeAlias = Sequence[EmbeddingInput] | NDArray[np.floating[Any]]
EmbeddingModel: TypeAlias = Callable[[list[str]], Embeddings | Awaitable[Embeddings]]
"""What makes an embedding of each text, in their order; `async` or not."""


@dataclass(frozen=True, slots=True)
class CacheStats:
    """The cache at a glance.

    Attributes:
        rows: All embeddings.
        bytes: On disk, with the index; 0 of an empty cache.
        models: How many embeddings of each model.
    """

    rows: int
    bytes: int
    models: dict[str, int]


@observed("embeddings", writes=("clear",))
class EmbeddingRepository:
    """The cache of embeddings."""

    def __init__(self, executor: Executor, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self._executor = executor
        self._limits = limits
        self._subject = Subject(CachedEmbedding.__tablename__, limits.slow_call_seconds)

    async def embed(
        self,
        texts: Iterable[str],
        *,
        model: EmbeddingModel,
        name: str | None = None,
        revision: str = "",
        dimensions: int | None = None,
        batch_size: int = 256,
        max_rows: int = MAX_CACHED,
    ) -> NDArray[np.float32]:
        """Embeddings from the cache, where the model computes what is missing.

        The model is given distinct texts, in the order of their first appearance. What it returned
        is stored batch by batch, so a failure loses one at most; by itself, no connection and no
        lock is held while the model runs. A hit is noted as used, once an hour at most, where that
        can be written.

        Args:
            texts: Any, "" too; no lone surrogates.
            model: Called with a list of up to `batch_size` texts. One that is not async runs in a
                thread.
            name: What the model is called in the cache, by all who share its embeddings. A function
                of a module may go without: then it is the function's own, as `module.name`.
            revision: Another one for whatever changes the embeddings: weights, prefixes, pooling.
            dimensions: How many the model was told to give; None takes what it gives.
            batch_size: How many texts the model takes at once, 1 to 10,000.
            max_rows: How many embeddings the cache keeps, of all models; 0 keeps all.

        Returns:
            A row for each text, in their order; a text that repeats, repeats.

        Raises:
            InvalidInputError: An argument was refused, or what the model returned.
            DimensionMismatchError: The model returned, or the cache holds, other lengths.
            LimitExceededError: A text is longer, or there are more, than a limit allows.
        """
        order, text_of = _by_hash(texts, self._limits)
        if not callable(model):
            raise InvalidInputError("model has to be a callable that takes a list of texts.")
        name = _name_of(model) if name is None else validation.check_id(name, name="name")
        key = {
            "of_model": name,
            "of_revision": checks.check_text(revision, name="revision")
            and validation.check_id(revision, name="revision"),
            "of_dimensions": 0
            if dimensions is None
            else validation.check_limit(dimensions, types.MAX_DIMENSIONS, name="dimensions"),
        }
        size = validation.check_limit(batch_size, MAX_LIMIT, name="batch_size")
        bound = checks.check_count(max_rows, name="max_rows")
        vectors = await self._find(list(text_of), key)
        expected = _one_length(vectors.values(), dimensions)
        missing = [text_hash for text_hash in text_of if text_hash not in vectors]
        labels = metrics.label("model", name)
        metrics.embedding_cache_hits_total.add(len(vectors), labels)
        metrics.embedding_cache_misses_total.add(len(missing), labels)
        for start in range(0, len(missing), size):
            batch = missing[start : start + size]
            returned = await call_theirs(model, [text_of[text_hash] for text_hash in batch])
            computed = dict(zip(batch, _checked(returned, len(batch), expected), strict=True))
            await self._executor.run(statements.store(), key | _rows(computed, bound))
            vectors |= computed
            expected = vectors[batch[0]].size
        if not order:
            return np.empty((0, dimensions or 0), dtype=np.float32)
        return np.stack([vectors[text_hash] for text_hash in order])

    async def clear(self, name: str | None = None) -> int:
        """Forget the embeddings of one model, or all, in batches.

        Returns:
            How many there were.

        Raises:
            InvalidInputError: The name was refused.
        """
        statement, params = statements.clear(of_model=name is not None), {}
        if name is not None:
            params = {"of_model": validation.check_id(name, name="name")}
        count, after = 0, b""
        while True:
            batch = {"after": after, "batch_size": _CLEAR_ROWS}
            rows = (await self._executor.run(statement, params | batch)).rows
            count += len(rows)
            if len(rows) < _CLEAR_ROWS:
                return count
            after = max(row[0] for row in rows)

    async def stats(self) -> CacheStats:
        """Counts and bytes. It reads the whole index, so not for each call."""
        rows = (await self._executor.run(statements.stats(), {})).rows
        models = {model: count for model, count, _ in rows}
        return CacheStats(sum(models.values()), rows[0][2] if rows else 0, models)

    async def _find(
        self, hashes: list[bytes], key: Mapping[str, Any]
    ) -> dict[bytes, NDArray[np.float32]]:
        vectors: dict[bytes, NDArray[np.float32]] = {}
        for start in range(0, len(hashes), _LOOKUP_ROWS):
            params = {
                **key,
                "hashes": hashes[start : start + _LOOKUP_ROWS],
                "stale_before": datetime.now(UTC) - _STALE_AFTER,
            }
            rows = (await self._executor.run(statements.find(), params)).rows
            vectors |= {text_hash: vector for text_hash, vector, _ in rows}
            if due := [text_hash for text_hash, _, is_due in rows if is_due]:
                await self._executor.run(statements.touch(), params | {"hashes": due})
        return vectors


def _by_hash(texts: object, limits: Limits) -> tuple[list[bytes], dict[bytes, str]]:
    """The hash of each text, and the distinct texts by theirs."""
    order, text_of = [], {}
    listed = validation.check_list(texts, name="texts", of="list of texts", limits=limits)
    for number, text in enumerate(listed):
        if not isinstance(text, str):
            raise InvalidInputError(f"texts[{number}] is a {type(text).__name__}; pass a str.")
        limits.check_text("max_document_bytes", text, f"texts[{number}]")
        text_hash = hashlib.sha256(checks.encoded(text, name=f"texts[{number}]")).digest()
        order.append(text_hash)
        text_of[text_hash] = text
    return order, text_of


def _name_of(model: object) -> str:
    """What a function is called; lambdas, methods and objects share their names with others."""
    name = getattr(model, "__qualname__", "<")
    if "<" in name or "." in name:
        raise InvalidInputError("This model has no name of its own to be cached by; pass name.")
    return f"{getattr(model, '__module__', '')}.{name}"


def _checked(returned: Any, count: int, expected: int | None) -> list[NDArray[np.float32]]:
    if isinstance(returned, (str, bytes, Mapping)) or not isinstance(returned, Iterable):
        raise InvalidInputError(
            f"The model returned a {type(returned).__name__}; it has to return an embedding for "
            "each text."
        )
    rows = list(returned)
    if len(rows) != count:
        raise InvalidInputError(f"The model returned {len(rows)} embeddings for {count} texts.")
    vectors = []
    for number, row in enumerate(rows):
        name = f"embedding {number} of what the model returned"
        vector = np.array(types.as_float32(row, name=name))  # a model may use its array again
        types.check_values(vector, name=name, allow_zero=True)
        vectors.append(vector)
    length = _one_length(vectors, expected)
    if length is not None and length > types.MAX_DIMENSIONS:
        raise InvalidInputError(
            f"The model returned {length} dimensions; at most {types.MAX_DIMENSIONS:,} fit."
        )
    return vectors


def _one_length(vectors: Iterable[NDArray[np.float32]], expected: int | None) -> int | None:
    """The length that all have, None where there is none yet."""
    for vector in vectors:
        expected = expected or vector.size
        if vector.size != expected:
            raise DimensionMismatchError(
                f"The model has {vector.size} dimensions here, but {expected} were asked for or "
                "were its own before: give another revision to a model that changed.",
                expected=expected,
                actual=vector.size,
            )
    return expected


def _rows(vectors: Mapping[bytes, NDArray[np.float32]], bound: int) -> dict[str, Any]:
    """What is stored, the groups that it falls into, and how many old rows each of them may keep.

    A group is a range of hashes with a share of the bound; since hashes are uniform, groups are
    about equally full. What is more than a group's share by itself isn't stored.
    """
    new: defaultdict[int, list[bytes]] = defaultdict(list)
    count = -(-bound // _GROUP_ROWS) or 1
    for text_hash in sorted(vectors):  # in key order: two who insert the same never deadlock
        new[int.from_bytes(text_hash[:8]) * count >> 64].append(text_hash)
    groups = sorted(new) if bound else []
    share = bound // count if bound else len(vectors)
    hashes = [text_hash for group in sorted(new) for text_hash in new[group][:share]]
    return {
        "hashes": hashes,
        "vecs": [types.encode(vectors[text_hash]) for text_hash in hashes],
        "lows": [_first(group, count).to_bytes(8) for group in groups],
        "highs": [(_first(group + 1, count) - 1).to_bytes(8) + b"\xff" * 24 for group in groups],
        "rooms": [max(0, share - len(new[group])) for group in groups],
    }


def _first(group: int, count: int) -> int:
    """The first 8 bytes of the smallest hash in a group, as a number."""
    return -(-(group << 64) // count)
