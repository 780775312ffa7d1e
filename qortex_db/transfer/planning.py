"""What an import will do: which vector goes where, which key is the document, and what is lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from qortex_db.errors import InvalidInputError
from qortex_db.messages import shown
from qortex_db.models.vector_spec import DEFAULT_VECTOR, HNSW, MAX_INDEXED, IVFFlat, VectorSpec
from qortex_db.names import plain_name
from qortex_db.transfer.source import UNNAMED, SourceVector, SparseComponents
from qortex_db.types import MAX_INDEXED_NONZEROS, MAX_SPARSE_DIMENSIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from qortex_db.transfer.source import Source, SourceDescription, SourceRow

PEEKED_ROWS: Final = 200
"""How many rows are looked at before a plan is made."""
_DOCUMENTS: Final = ("page_content", "document", "text", "content", "chunk", "passage", "body")
"""What others call the text of a row, the surest first."""
_LONG: Final = 80
"""Characters, on the average, from which on a text of another name is taken for the document."""
_MAX_FULL, _MAX_HALF = MAX_INDEXED["vector"], MAX_INDEXED["halfvec"]


@dataclass(frozen=True, slots=True)
class Choices:
    """What a caller says of an import, where it is not guessed.

    Attributes:
        document: The key of the payload whose text becomes the document; "" for none.
        payload: The key whose object becomes the payload, in the place of what is around it; "" for
            none.
        vector: Which of the source's vectors becomes the collection's own.
        leave_out: Vectors that stay behind.
    """

    document: str | None = None
    payload: str | None = None
    vector: str | None = None
    leave_out: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """What an import does with each row.

    Attributes:
        label: Of the source.
        source: What the source says of itself, with what its rows tell besides.
        specs: The collection's vectors, by their names there, as a model declares them.
        vectors: By their names in the source, what they are called in the collection.
        document: The key whose text becomes the document; None for none, or where the source has
            documents of its own.
        payload: The key whose object becomes the payload; None for all of it.
        guessed: Which of these two were guessed.
        keys: Of the payloads that were looked at: how many have each, and of what types.
        notes: What is otherwise afterwards than it was, a sentence each.
    """

    label: str
    source: SourceDescription
    specs: Mapping[str, VectorSpec]
    vectors: Mapping[str, str]
    document: str | None
    payload: str | None
    guessed: Sequence[str]
    keys: Mapping[str, str]
    notes: Sequence[str]


async def plan_import(source: Source, choices: Choices | None = None) -> ImportPlan:
    """Read a source's configuration and its first rows; nothing is written.

    Raises:
        InvalidInputError: A choice names what is not there, or nothing here could be a vector.
    """
    choices = choices or Choices()
    found = await source.describe()
    rows: Sequence[SourceRow] = ()
    async for page in source.pages(None, PEEKED_ROWS):
        rows = page.rows
        break
    vectors = [_sized(vector, rows) for vector in found.vectors]
    found = replace(found, vectors=vectors)
    notes = list(found.notes)
    targets = _targets(vectors, choices)
    specs = {
        targets[vector.name]: _spec(vector, rows, notes)
        for vector in vectors
        if vector.name in targets
    }
    payload, document, guessed = _keys_meant(rows, choices)
    if any(isinstance(row.id, int) for row in rows):
        notes.append("Ids that are numbers become texts where the table's keys are: 7 is '7'.")
    inner: Iterable[Mapping[str, Any]] = (
        row.payload if payload is None else _object(row.payload.get(payload)) for row in rows
    )
    return ImportPlan(
        source.label,
        found,
        specs,
        targets,
        document,
        payload,
        guessed,
        _kinds(inner),
        notes,
    )


def _sized(vector: SourceVector, rows: Sequence[SourceRow]) -> SourceVector:
    """With the dimensions of the first row that has it, where the source says none."""
    if vector.storage == "sparse" or vector.dimensions is not None:
        return vector
    for row in rows:
        if (value := row.vectors.get(vector.name)) is not None:
            return replace(vector, dimensions=len(value))
    return vector


def _targets(vectors: Sequence[SourceVector], choices: Choices) -> dict[str, str]:
    """What each vector is called in the collection."""
    names = [vector.name for vector in vectors]
    for name in (*choices.leave_out, *([choices.vector] if choices.vector is not None else ())):
        if name not in names:
            known = ", ".join(repr(name) for name in names) or "none"
            raise InvalidInputError(f"The source has no vector {shown(name)}: it has {known}.")
    kept = [vector for vector in vectors if vector.name not in choices.leave_out]
    dense = [vector.name for vector in kept if vector.storage != "sparse"]
    main = choices.vector
    if main is None:
        main = UNNAMED if UNNAMED in dense else next(iter(dense), None)
    if main is None:
        raise InvalidInputError(
            "The source has no dense vector that could be a collection's own, so nothing here is "
            "searched by meaning."
        )
    if main not in dense:
        raise InvalidInputError(
            f"The vector {shown(main)} is sparse, or left out: a collection's own is a dense one."
        )
    targets = {main: DEFAULT_VECTOR}
    for vector in kept:
        if vector.name != main:
            targets[vector.name] = _column(vector.name, set(targets.values()))
    return targets


def _column(name: str, taken: set[str]) -> str:
    """A name as a column and an attribute of Python can have it."""
    plain = plain_name(name)[:50] or "vector"
    if not plain[0].isalpha() or plain in (DEFAULT_VECTOR, "id", "payload", "document"):
        plain = f"vector_{plain}"
    number, found = 2, plain
    while found in taken:
        found, number = f"{plain}_{number}", number + 1
    return found


def _spec(vector: SourceVector, rows: Sequence[SourceRow], notes: list[str]) -> VectorSpec:
    """As a model declares it: what pgvector has no index for is made something that it has."""
    if isinstance(vector.index, IVFFlat):
        vector = replace(vector, index=HNSW())
        notes.append(
            f"The index on {shown(vector.name)} is of lists there; those are found in rows, and a "
            "new table has none, so it is a graph here."
        )
    if vector.storage == "sparse":
        return _sparse_spec(vector, rows, notes)
    quantization, size = vector.quantization, vector.dimensions or 0
    if vector.index is not None and quantization is None and size > _MAX_FULL:
        fits = vector.storage == "half" and size <= _MAX_HALF
        if not fits:
            quantization = "half" if size <= _MAX_HALF else "binary"
            notes.append(
                f"The vector {shown(vector.name)} has {size:,} dimensions; its index is of "
                f"{quantization} precision, and searches compare by the full vectors."
            )
    if quantization == "half" and (vector.storage == "half" or size > _MAX_HALF):
        quantization = None if size <= _MAX_HALF else "binary"
    if vector.index is None:
        quantization = None
    return VectorSpec(vector.dimensions, vector.metric, vector.storage, quantization, vector.index)


def _sparse_spec(vector: SourceVector, rows: Sequence[SourceRow], notes: list[str]) -> VectorSpec:
    sizes = [
        len(value.indices)
        for row in rows
        if isinstance(value := row.vectors.get(vector.name), SparseComponents)
    ]
    index = vector.index
    if index is not None and max(sizes, default=0) > MAX_INDEXED_NONZEROS:
        index = None
        notes.append(
            f"Vectors {shown(vector.name)} have more than {MAX_INDEXED_NONZEROS:,} components, "
            "which pgvector has no index for: searches by them read the whole table."
        )
    notes.append(
        f"Indices of {shown(vector.name)} from {MAX_SPARSE_DIMENSIONS:,} on are taken modulo it: "
        "fold queries by fold_sparse, likewise."
    )
    return VectorSpec(MAX_SPARSE_DIMENSIONS, vector.metric, "sparse", index=index)


def _keys_meant(
    rows: Sequence[SourceRow], choices: Choices
) -> tuple[str | None, str | None, tuple[str, ...]]:
    payload, document = choices.payload, choices.document
    for told in (payload, document):
        if told and not any(told in row.payload for row in rows):
            raise InvalidInputError(f"None of the first rows has a key {shown(told)}.")
    if document is None:
        document = _guessed_document(rows)
    if payload is None:
        payload = _guessed_payload(rows, document)
    found = (("payload", choices.payload, payload), ("document", choices.document, document))
    guessed = tuple(name for name, told, meant in found if told is None and meant)
    return payload or None, document or None, guessed


def _guessed_payload(rows: Sequence[SourceRow], document: str | None) -> str | None:
    """`metadata`, where a framework wrote nothing beside it but the text."""
    around = {"metadata", document}
    fits = rows and all(
        row.payload.keys() <= around and isinstance(row.payload.get("metadata"), dict | None)
        for row in rows
    )
    return "metadata" if fits and any("metadata" in row.payload for row in rows) else None


def _guessed_document(rows: Sequence[SourceRow]) -> str | None:
    """The key whose text is meant, if rows have no document of their own."""
    if any(row.document is not None for row in rows):
        return None
    lengths: dict[str, list[int]] = {}
    for row in rows:
        for key, value in row.payload.items():
            if isinstance(value, str):
                lengths.setdefault(key, []).append(len(value))
    often = {key: sizes for key, sizes in lengths.items() if 2 * len(sizes) >= len(rows)}
    for key in _DOCUMENTS:
        if key in often:
            return key
    mean = {key: sum(sizes) / len(sizes) for key, sizes in often.items()}
    longest = max(mean, key=lambda key: mean[key], default=None)
    return longest if longest is not None and mean[longest] >= _LONG else None


def _kinds(payloads: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Of each key, the types of its values."""
    counted: dict[str, Counter[str]] = {}
    for payload in payloads:
        for key, value in payload.items():
            name = "null" if value is None else type(value).__name__
            counted.setdefault(key, Counter())[name] += 1
    return {
        key: ", ".join(f"{kind} ({count})" for kind, count in counts.most_common())
        for key, counts in sorted(counted.items())
    }


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
