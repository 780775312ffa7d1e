"""Haystack's documents as rows of a collection, and back."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

from haystack.dataclasses import ByteStream, Document, SparseEmbedding

from qortex_db.errors import InvalidInputError
from qortex_db.markers import CLEAR

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qortex_db.integrations.collections import CollectionOf

EXTRAS: Final = "_haystack"
"""The key of the payload that has a document's blob and sparse embedding, where it has them."""


def listed(documents: object) -> list[Document]:
    """Documents, and nothing else.

    Raises:
        InvalidInputError: They are none.
    """
    if isinstance(documents, (str, bytes)) or not hasattr(documents, "__iter__"):
        raise InvalidInputError(
            f"documents is a {type(documents).__name__}; pass a list of Documents."
        )
    found: Iterable[object] = documents
    given: list[Document] = []
    for number, document in enumerate(found):
        if not isinstance(document, Document):
            raise InvalidInputError(
                f"documents[{number}] is a {type(document).__name__}; pass a Document."
            )
        given.append(document)
    return given


def record_of(document: Document, of: CollectionOf) -> dict[str, Any]:
    """A row that replaces all of an older one.

    Raises:
        InvalidInputError: Its meta has our own key.
    """
    check_meta(document.meta)
    payload = dict(document.meta)
    extras: dict[str, Any] = {}
    if document.blob is not None:
        extras["blob"] = {
            "data": base64.b64encode(document.blob.data).decode(),
            "meta": document.blob.meta,
            "mime_type": document.blob.mime_type,
        }
    if document.sparse_embedding is not None:
        extras["sparse_embedding"] = document.sparse_embedding.to_dict()
    if extras:
        payload[EXTRAS] = extras
    return {
        "id": of.key(document.id),
        "embedding": CLEAR if document.embedding is None else document.embedding,
        "document": CLEAR if document.content is None else document.content,
        "payload": payload,
    }


def check_meta(meta: Any) -> None:
    """Refuse a key that is ours."""
    if EXTRAS in meta:
        raise InvalidInputError(f"The meta has a key {EXTRAS}, which is the store's own.")


def document_of(found: Any, *, score: float | None = None) -> Document:
    """A document as it was; its embedding's numbers as float4 has them."""
    payload = dict(found.payload or {})
    extras = payload.pop(EXTRAS, {})
    blob, sparse = extras.get("blob"), extras.get("sparse_embedding")
    if blob is not None:
        blob = ByteStream(base64.b64decode(blob["data"]), blob["meta"], blob["mime_type"])
    embedding = None if found.embedding is None else found.embedding.tolist()
    return Document(
        id=str(found.id),
        content=found.document,
        meta=payload,
        blob=blob,
        sparse_embedding=None if sparse is None else SparseEmbedding(**sparse),
        embedding=embedding or None,
        score=score,
    )
