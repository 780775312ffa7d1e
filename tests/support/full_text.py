"""The words of documents, said independently of how the package says it."""

from __future__ import annotations

from typing import Final


def words_of(column: str, configuration: str = "english") -> str:
    """The tsvector of a text in which all of ASCII's punctuation is spaces."""
    return f"to_tsvector('{configuration}', regexp_replace({column}, '[!-/:-@[-`{{-~]', ' ', 'g'))"


WORDS: Final = words_of("document")
