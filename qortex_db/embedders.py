"""Models that embed texts, of whatever shape, as one callable for documents and one for queries."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from qortex_db.checks import check_text
from qortex_db.errors import InvalidInputError

Texts: TypeAlias = Callable[[list[str]], Any | Awaitable[Any]]

# LangChain's, LlamaIndex's and sentence-transformers' names: of many documents, and of queries,
# async before sync. A SentenceTransformer can be called as well, with something else.
_OF_MANY: Final = (
    *("aembed_documents", "embed_documents"),
    *("aget_text_embedding_batch", "get_text_embedding_batch"),
    *("encode_document", "encode"),
)
_OF_QUERIES: Final = ("encode_query",)
_OF_ONE_QUERY: Final = (
    "aembed_query",
    "embed_query",
    "aget_query_embedding",
    "get_query_embedding",
)
_NAMES: Final = ("model_name", "model", "model_id")


class Embedder:
    """What makes embeddings of texts, and what it is called in the cache.

    Args:
        model: A callable that takes a list of texts and gives, or is awaited to give, an embedding
            of each; or an object with the methods of LangChain's, LlamaIndex's or
            sentence-transformers' models. What is not async runs in a thread.
        name: By which all who share its embeddings know it; by default the name that the object
            says, or a function's own, as `module.name`.
        revision: Another one for whatever changes the embeddings: weights, prefixes, pooling.

    Raises:
        InvalidInputError: It is none, or has no name.
    """

    def __init__(self, model: object, *, name: str | None = None, revision: str = "") -> None:
        self.documents: Texts = _documents_of(model)
        self.queries, self.tells_queries = _queries_of(model, self.documents)
        self.name = _name_of(model) if name is None else check_text(name, name="name")
        if not self.name:
            raise InvalidInputError("name is empty; pass what the embedder is called.")
        self.revision = check_text(revision, name="revision")

    @property
    def label(self) -> str:
        """What tells its embeddings from those of other models."""
        return f"{self.name}@{self.revision}" if self.revision else self.name

    @classmethod
    def of(cls, given: object, *, name: str | None = None, revision: str = "") -> Embedder:
        """An embedder, made of a model unless it is one.

        Raises:
            InvalidInputError: It is none, or has no name.
        """
        if not isinstance(given, cls):
            return cls(given, name=name, revision=revision)
        if name is not None or revision:
            raise InvalidInputError("An Embedder has its name and revision; leave them out here.")
        return given


class ExampleText(str):
    """A text among the examples of `recommend`, where any other is an id."""

    __slots__ = ()


def _method(model: object, names: tuple[str, ...]) -> Callable[..., Any] | None:
    if inspect.isfunction(model):
        return None
    try:
        found = [getattr(model, name, None) for name in names]
    except Exception:  # noqa: BLE001 - of the object's own class
        return None
    return next((method for method in found if callable(method)), None)


def _documents_of(model: object) -> Texts:
    is_none = isinstance(model, (type, str, bytes))  # a text has an encode, too
    method = None if is_none else _method(model, _OF_MANY)
    if method is not None:
        return method
    if not callable(model) or is_none:
        kind = "type" if isinstance(model, type) else type(model).__name__  # or its metaclass
        raise InvalidInputError(
            f"embedder is a {kind}; pass a callable that takes a list of texts, or "
            "an object with embed_documents, get_text_embedding_batch or encode."
        )
    return model


def _queries_of(model: object, documents: Texts) -> tuple[Texts, bool]:
    """What embeds queries, and whether it is another than what embeds documents."""
    many = _method(model, _OF_QUERIES)
    if many is not None:
        return many, True
    one = _method(model, _OF_ONE_QUERY)
    if one is None:
        return documents, False
    single = one

    if inspect.iscoroutinefunction(single):

        async def each_awaited(texts: list[str]) -> list[Any]:
            return [await single(text) for text in texts]

        return each_awaited, True
    return (lambda texts: [single(text) for text in texts]), True


def _name_of(model: object) -> str:
    if inspect.isroutine(model):
        name = getattr(model, "__qualname__", "<")
        if "<" not in name and "." not in name:
            return f"{getattr(model, '__module__', '')}.{name}"
    else:
        for attribute in _NAMES:
            said = getattr(model, attribute, None)
            if isinstance(said, str) and said:
                return f"{type(model).__name__}:{check_text(said, name=attribute)}"
    raise InvalidInputError("This embedder has no name of its own to be cached by; pass name.")
