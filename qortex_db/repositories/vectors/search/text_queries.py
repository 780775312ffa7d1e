"""What a text asks for: any or all of its words, a phrase, or what people write in a web search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from qortex_db.checks import check_choice, check_text
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

MAX_WORDS: Final = 64
"""How many words of a text count, the first."""


@dataclass(frozen=True, slots=True)
class TextQuery:
    """A text as statements take it.

    Attributes:
        excludes: Whether rows are left out of the whole answer.
        params: The text, and what is excluded.
    """

    match: TextMatch
    excludes: bool
    params: Mapping[str, Any]


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
        return TextQuery("websearch", bool(excluded), params)
    given = given[:MAX_SEARCHED_CHARS]
    if match == "phrase":
        given = as_phrase(parts_of(given)[:MAX_WORDS])
    elif match == "all":
        split = ((word.casefold(), parts_of(word)) for word in given.split())
        each = {word: as_phrase(parts) for word, parts in split if parts}
        given = " ".join([*each.values()][:MAX_WORDS])
    return TextQuery(match, excludes=False, params={"text": given})  # type: ignore[arg-type]
