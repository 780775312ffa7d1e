"""The words of a text, the same wherever they are searched, indexed or asked for.

PostgreSQL's parser takes `/etc/nginx/nginx.conf` for one file, `example.com` for a host and
`<b>` for a tag. Here punctuation only stands between words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.dialects.postgresql import TSQUERY, TSVECTOR

from qortex_db.errors import InvalidInputError
from qortex_db.filters.expressions import Configuration, Constant, Readable
from qortex_db.names import is_identifier
from qortex_db.sql import Text, func

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Column, ColumnElement, Table

TEXT_CONFIGURATION: Final = "qortex_db_text_configuration"
"""The key of `Table.info` under which a table says by which its documents are read."""
STORED_WORDS: Final = "document_words"
"""The column that holds the words of a row's document."""
ARE_WORDS: Final = "qortex_db_words"
"""The key of `Column.info` that tells it from a host's own of that name."""
MAX_SEARCHED_CHARS: Final = 100_000
"""How much of a text is looked at: a tsvector has to stay below 1 MB."""

# What the server's parser would make one word, or no word, of others with it.
_GLUE: Final = "/.-@<&+~"
_PUNCTUATION: Final = re.compile(r"[!-/:-@[-`{-~\s]+")
_TERMS: Final = re.compile(
    r"""(?P<no>(?<!\S)-)?(?:"(?P<phrase>[^"]*)"?|(?P<word>[^\s"]+))""", re.DOTALL
)


def words(text: ColumnElement[Any], configuration: str) -> ColumnElement[Any]:
    """The tsvector of a text: what is searched, and what an index holds."""
    return func.to_tsvector(_configuration(configuration), _parsed(text), type_=TSVECTOR())


def is_found(vector: ColumnElement[Any], query: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a tsvector has what a tsquery asks for."""
    return vector.op("@@", is_comparison=True)(query)


def web_tsquery(configuration: str, query: ColumnElement[str]) -> ColumnElement[Any]:
    """A `web_query` as PostgreSQL has it."""
    return func.websearch_to_tsquery(_configuration(configuration), query, type_=TSQUERY())


def _configuration(name: str) -> ColumnElement[Any]:
    """A configuration by its name."""
    return Configuration(_quoted(name))


def _quoted(name: str) -> str:
    """As SQL takes it: in quotation marks where it isn't of small letters."""
    parts = name.split(".")
    return ".".join(part if part == part.lower() else f'"{part}"' for part in parts)


def _parsed(text: ColumnElement[Any]) -> ColumnElement[str]:
    """What the parser is given."""
    beginning = func.left(text, Constant(MAX_SEARCHED_CHARS))
    glue, spaces = map(Readable, (_GLUE, " " * len(_GLUE)))
    return func.translate(beginning, glue, spaces, type_=Text())


def words_sql(column: str, configuration: str) -> str:
    """The tsvector of a column, as the server shows it of a generated column."""
    return (
        f"to_tsvector('{_quoted(configuration)}'::regconfig, "
        f'translate("left"({column}, {MAX_SEARCHED_CHARS}), '
        f"'{_GLUE}'::text, '{' ' * len(_GLUE)}'::text))"
    )


def stored_words(table: Table) -> Column[Any] | None:
    """The column with the words of a table's documents; None where they are not stored.

    The server keeps it where it is computed. Else our writes do, and it is NULL, or of an older
    document, in what others wrote.
    """
    column = table.c.get(STORED_WORDS)
    return column if column is not None and ARE_WORDS in column.info else None


def is_whole(table: Table) -> bool:
    """Whether the words of every document are stored."""
    stored = stored_words(table)
    return stored is not None and stored.computed is not None


def document_words(table: Table, configuration: str | None = None) -> ColumnElement[Any]:
    """The words of a table's documents, as an index has them.

    Args:
        configuration: By which they are read; by default the table's own.
    """
    own = text_configuration(table)
    if is_whole(table) and configuration in (None, own):
        return table.c[STORED_WORDS]
    return words(table.c.document, configuration or own)


def kept_words(table: Table, document: ColumnElement[Any]) -> dict[str, ColumnElement[Any]]:
    """What a write of a document puts beside it, by column; nothing where the server does."""
    if stored_words(table) is None or is_whole(table):
        return {}
    return {STORED_WORDS: words(document, text_configuration(table))}


def text_configuration(table: Table) -> str:
    """The text search configuration that a table's documents are read by."""
    configuration: str = table.info.get(TEXT_CONFIGURATION, "simple")
    return configuration


def check_configuration(name: object, at: str) -> str:
    """The name of a text search configuration, as `english` or `public.german_unaccent`."""
    if isinstance(name, str):
        parts = name.split(".")
        if len(parts) <= 2 and all(map(is_identifier, parts)):  # noqa: PLR2004 - a schema's
            return name
    raise InvalidInputError(
        f"{at} is no name of a text search configuration; pass one as 'english', or with its "
        "schema as 'public.german_unaccent' (psql's \\dF lists them)."
    )


@dataclass(frozen=True, slots=True)
class Term:
    """A part of what somebody searches for, as `websearch_to_tsquery` takes it.

    Attributes:
        text: A word, or a phrase in quotation marks.
        excluded: Whether it has a dash before it.
        is_or: Whether it stands between two others, either of which will do.
    """

    text: str
    excluded: bool = False
    is_or: bool = False


def read_terms(text: str) -> list[Term]:
    """Words, "phrases", -exclusions and `or`; a word with punctuation inside is a phrase."""
    terms = []
    for found in _TERMS.finditer(text):
        phrase, word = found["phrase"], found["word"]
        parts = parts_of(word if phrase is None else phrase)
        if not parts:
            continue
        # Of several dashes, as before an option, none excludes.
        excluded = found["no"] is not None and not (word or "").startswith("-")
        is_or = word is not None and word.lower() == "or" and not excluded
        terms.append(Term("or" if is_or else as_phrase(parts), excluded, is_or))
    return terms


def included(terms: Sequence[Term]) -> tuple[list[Term], list[Term]]:
    """The terms that are searched for, and those that are excluded."""
    wanted: list[Term] = []
    excluded: list[Term] = []
    for term in terms:
        if term.excluded:
            excluded.append(replace(term, excluded=False))
        elif not term.is_or or (wanted and not wanted[-1].is_or):
            wanted.append(term)
    if wanted and wanted[-1].is_or:
        wanted.pop()
    return wanted, excluded


def web_query(terms: Sequence[Term]) -> str:
    """What `websearch_to_tsquery` reads."""
    return " ".join(f"-{term.text}" if term.excluded else term.text for term in terms)


def as_phrase(parts: Sequence[str]) -> str:
    """Words that stand one after the other, as `websearch_to_tsquery` takes them."""
    return f'"{" ".join(parts)}"'


def parts_of(text: str) -> list[str]:
    """What stands between punctuation and spaces."""
    return [part for part in _PUNCTUATION.split(text) if part]
