"""SQL laid out for readers: a clause a line, and what is longer than a line by its parts."""

from __future__ import annotations

import re
from itertools import pairwise
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Final

from sqlparse import lexer
from sqlparse.tokens import Whitespace

if TYPE_CHECKING:
    from collections.abc import Iterable

WIDTH: Final = 96

_HEADS: Final = {"SELECT", "INSERT", "UPDATE", "DELETE", "PARTITION"}
_CLAUSES: Final = _HEADS | {
    *("WITH", "FROM", "USING", "JOIN", "LEFT OUTER JOIN", "FULL OUTER JOIN", "WHERE", "GROUP BY"),
    *("ORDER BY", "LIMIT", "FOR", "SET", "RETURNING", "UNION", "UNION ALL"),
}
_GO_ON: Final = {"DELETE FROM", "DISTINCT FROM", "DO UPDATE", "FOR UPDATE", "KEY UPDATE"}
_PARTS: Final = {"AND", "OR", "WHEN", "ELSE", "END"}
_INNER: Final = {
    "THEN",
    "ON",
    "AS",
    "IS",
    *("=", "<", "<=", ">", ">=", "~", "+", "-", "*", "/", "||"),
}
"""Where a part is cut that is too long for a line, and has no parts of its own."""
_LITERAL: Final = re.compile(r"'((?:[^'\\]|\\.|'')*)'")
_LETTER: Final = re.compile(r"\\x..|\\.|''|.")


def lay_out(sql: str) -> str:
    """The same words, on other lines; sqlparse's own layout drifts too far to the right."""
    return "\n".join(part for line in _block(_tree(sql), 0) for part in _whole(line))


def _whole(line: str) -> list[str]:
    """A line, or several where a literal is too long for one: SQL takes it by its parts."""
    literals = _LITERAL.finditer(line) if len(line) > WIDTH else ()
    found = next((one for one in literals if len(one[0]) > WIDTH // 2), None)
    if found is None:
        return [line]
    blanks = " " * (len(line) - len(line.lstrip()))
    room = max(WIDTH - len(blanks), WIDTH // 2) - len("E''")
    parts = [""]
    for letter in _LETTER.findall(found[1]):
        if len(parts[-1]) + len(letter) > room - (found.start() - len(blanks)) * (len(parts) == 1):
            parts.append("")
        parts[-1] += letter
    first, *rest = (f"'{part}'" for part in parts)
    lines = [line[: found.start()] + first, *(blanks + part for part in rest)]
    return [*lines[:-1], *_whole(lines[-1] + line[found.end() :])]


def _tree(sql: str) -> list[Any]:
    """The words, with blanks between them; what is in parentheses is a list of its own."""
    levels: list[list[Any]] = [[]]
    for kind, word in lexer.tokenize(sql):
        if word == "(":
            levels.append([])
        elif word == ")":
            inner = levels.pop()
            levels[-1].append(inner)
        elif kind not in Whitespace:
            levels[-1].append(word)
        elif levels[-1] and levels[-1][-1] != " ":
            levels[-1].append(" ")
    (tree,) = levels
    return tree


def _inline(nodes: list[Any]) -> str:
    words = (node if isinstance(node, str) else f"({_inline(node)})" for node in nodes)
    return "".join(words).strip()


def _block(nodes: list[Any], depth: int) -> list[str]:
    """A query by its clauses, arguments by their commas, names as many as a line holds."""
    if any(word in _HEADS for _, word in _words(nodes)):
        starts = _clauses(nodes)
    elif all(isinstance(node, str) for node in nodes):
        blanks = "  " * depth
        return wrap(
            _inline(nodes),
            WIDTH,
            initial_indent=blanks,
            subsequent_indent=blanks,
            break_long_words=False,
            break_on_hyphens=False,  # of a literal
        )
    else:
        starts = _parts(nodes)
    return [line for piece in _cut(nodes, starts) for line in _piece(piece, depth)]


def _piece(nodes: list[Any], depth: int) -> list[str]:
    line = "  " * depth + _inline(nodes)
    if len(line) <= WIDTH:
        return [line]
    first, *rest = _cut(nodes, _parts(nodes))
    if not rest:
        lines = _opened(nodes, depth)
        if max(map(len, lines)) <= WIDTH:
            return lines
        first, *rest = _cut(nodes, [i for i, word in _words(nodes)[1:] if word in _INNER])
        if not rest:
            return lines
    deeper = depth + (first[0] != "WITH")
    return [*_piece(first, depth), *(line for part in rest for line in _piece(part, deeper))]


def _opened(nodes: list[Any], depth: int) -> list[str]:
    """What has no parts, with its long parentheses opened."""
    lines = ["  " * depth]
    for node in nodes:
        if isinstance(node, str):
            lines[-1] += node
        elif len(text := f"({_inline(node)})") <= min(WIDTH // 2, WIDTH - len(lines[-1])):
            lines[-1] += text
        else:
            lines[-1] += "("
            lines += [*_block(node, depth + 1), "  " * depth + ")"]
    return [line.rstrip() for line in lines]


def _cut(nodes: list[Any], starts: Iterable[int]) -> list[list[Any]]:
    bounds = [0, *starts, len(nodes)]
    pieces = ([*nodes[start:end]] for start, end in pairwise(bounds))
    return [piece[1:] if piece[:1] == [" "] else piece for piece in pieces if piece]


def _words(nodes: list[Any]) -> list[tuple[int, str]]:
    words = ((i, node if isinstance(node, str) else "()") for i, node in enumerate(nodes))
    return [(i, word) for i, word in words if word != " "]


def _clauses(nodes: list[Any]) -> list[int]:
    """Where clauses begin, after the first."""
    starts = []
    for (_, before), (i, word) in pairwise(_words(nodes)):
        if word in _CLAUSES and f"{before} {word}" not in _GO_ON:
            starts.append(i)
        elif word == "CONFLICT":
            starts.append(i - 2)  # with its ON
    return starts


def _parts(nodes: list[Any]) -> list[int]:
    """Where the parts of a clause or of an expression begin, after the first."""
    starts = []
    ranges = 0
    for (_, before), (i, word) in pairwise(_words(nodes)):
        ranges += word == "BETWEEN"
        if word == "AND" and ranges:
            ranges -= 1
        elif before == "," or word in _PARTS:
            starts.append(i)
    return starts
