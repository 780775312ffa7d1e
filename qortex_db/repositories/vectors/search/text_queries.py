"""What a text asks for: any or all of its words, a phrase, or what people write in a web search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from qortex_db.checks import check_choice, check_number, check_text
from qortex_db.errors import InvalidInputError
from qortex_db.filters.full_text import (
    MAX_SEARCHED_CHARS,
    as_phrase,
    included,
    parts_of,
    read_terms,
    web_query,
)
from qortex_db.filters.values import MAX_QUERY_CHARS

if TYPE_CHECKING:
    from collections.abc import Mapping

TextMatch: TypeAlias = Literal["any", "all", "phrase", "websearch"]
"""Which documents a text finds."""

TextRank: TypeAlias = Literal["bm25", "ts_rank"]
"""By what documents are ranked."""

MAX_WORDS: Final = 64
"""How many words of a text count, the first."""


@dataclass(frozen=True, slots=True)
class BM25:
    """Okapi BM25: rarer words count more, and so do those that a short document has often.

    Args:
        k1: How much it says that a document has a word often: 0, nothing, to 100.
        b: How much it says that a document is long: 0, nothing, to 1.

    Raises:
        InvalidInputError: A number is out of its range.

    Source:
        Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009).
    """

    k1: float = 1.2
    b: float = 0.75

    def __post_init__(self) -> None:
        object.__setattr__(self, "k1", check_number(self.k1, name="k1", low=0, high=100))
        object.__setattr__(self, "b", check_number(self.b, name="b", low=0, high=1))


@dataclass(frozen=True, slots=True)
class TextQuery:
    """A text as statements take it.

    Attributes:
        excludes: Whether rows are left out of the whole answer.
        params: The text, and what is excluded.
        words: What it is ranked by.
    """

    match: TextMatch
    excludes: bool
    params: Mapping[str, Any]
    words: str


def read_text(text: object, match: object) -> TextQuery:
    """Read a text; in every mode but websearch, any one is an answer."""
    check_choice(match, get_args(TextMatch), name="match")
    # The longest texts are cut first: what is beyond is not looked at in documents either.
    given = check_text(text, name="text")
    if match == "websearch":
        if len(given) > MAX_QUERY_CHARS:
            raise InvalidInputError(
                f"text has {len(given):,} characters; a websearch takes at most "
                f"{MAX_QUERY_CHARS:,}. With match='any' a text may have any length."
            )
        wanted, excluded = included(read_terms(given))
        params = {"text": web_query(wanted)}
        if excluded:
            params["excluded"] = " or ".join(term.text for term in excluded)
        words = " ".join(term.text for term in wanted if not term.is_or)
        return TextQuery("websearch", bool(excluded), params, words)
    given = given[:MAX_SEARCHED_CHARS]
    if match == "phrase":
        given = as_phrase(parts_of(given)[:MAX_WORDS])
    elif match == "all":
        split = ((word.casefold(), parts_of(word)) for word in given.split())
        each = {word: as_phrase(parts) for word, parts in split if parts}
        given = " ".join([*each.values()][:MAX_WORDS])
    return TextQuery(match, excludes=False, params={"text": given}, words=given)  # type: ignore[arg-type]
