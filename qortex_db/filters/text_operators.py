"""Operators over texts, of payloads and of documents: patterns, words and substrings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qortex_db.errors import InvalidInputError
from qortex_db.filters import conditions
from qortex_db.filters.fields import MAX_INDEXED_CHARS, check_readable
from qortex_db.filters.full_text import (
    check_configuration,
    read_terms,
    text_configuration,
    web_query,
)
from qortex_db.filters.regex import read_regex
from qortex_db.filters.values import as_string, check_pattern, successor

if TYPE_CHECKING:
    from sqlalchemy import Table

    from qortex_db.filters.conditions import Shape
    from qortex_db.filters.fields import Path


def like(_: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    """A string that a pattern matches."""
    pattern = check_pattern(value, at)
    values.append(pattern)
    beginning = pattern[:-1]
    # The keyword index knows how a string begins.
    plain = pattern.endswith("%") and not any(mark in beginning for mark in "%_\\")
    indexed = plain and 0 < len(beginning) < MAX_INDEXED_CHARS
    return conditions.like, path, "keyword" if indexed else "string"


def ilike(_: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    """As like, whatever the case."""
    values.append(check_pattern(value, at))
    return conditions.ilike, path


def prefix(_: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    """A string that begins with another."""
    return _begins(path, as_string(value, at), values)


def _begins(path: Path, text: str, values: list[Any]) -> Shape:
    """As a range, which an index serves whatever the value is: a pattern it has to be shown."""
    column = "keyword" if len(text) <= MAX_INDEXED_CHARS else "string"
    bounds = {">=": text, "<": successor(text)}
    bounds = {sign: bound for sign, bound in bounds.items() if bound is not None}
    values.extend(bounds.values())
    return "and", *((conditions.compare, path, column, sign) for sign in bounds)


def regex(_: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    """A string in which a regular expression is found."""
    found = read_regex(as_string(value, at), at)
    beginning = [_begins(path, found.prefix, values)] if found.prefix else []
    values.append(found.sql)
    return "and", *beginning, (conditions.matches_regex, path)


def _query(value: object, at: str) -> str:
    """A text as `websearch_to_tsquery` is given it."""
    return web_query(read_terms(as_string(value, at)))


def _search(value: object, at: str, configuration: str = "simple") -> tuple[str, str]:
    if not isinstance(value, Mapping):
        return _query(value, at), configuration
    if not {"$search"} <= value.keys() <= {"$search", "$language"}:
        raise InvalidInputError(f"{at} takes a string, or a dict of $search and $language.")
    if "$language" in value:
        configuration = check_configuration(value["$language"], f"{at}['$language']")
    return _query(value["$search"], f"{at}['$search']"), configuration


def text(_: Table, path: Path, value: Any, at: str, values: list[Any]) -> Shape:
    """A string in which words are found."""
    query, configuration = _search(value, at)
    values.append(query)
    return conditions.matches, path, configuration


def document_text(table: Table, value: Any, at: str, values: list[Any]) -> Shape:
    """The same of the row's document."""
    if "document" not in table.c:
        raise InvalidInputError(f"{at} needs a column document, which the table lacks.")
    check_readable(table, None, at)
    query, configuration = _search(value, at, text_configuration(table))
    values.append(query)
    return conditions.document_matches, None, configuration


def document_contains(table: Table, value: Any, at: str, values: list[Any]) -> Shape:
    """A substring of the row's document."""
    if "document" not in table.c:
        raise InvalidInputError(f"{at} needs a column document, which the table lacks.")
    check_readable(table, None, at)
    values.append(as_string(value, at))
    return conditions.document_contains, None
