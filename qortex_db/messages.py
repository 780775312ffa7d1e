"""What messages, logs and spans show: names that are cut and escaped, and no value."""

from __future__ import annotations

import re
import shlex
import unicodedata
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_SHOWN: Final = 60
"""How many characters of a name are shown: an id may have a thousand, a payload's key a million."""
_MAX_MESSAGE: Final = 2_000

# Of whatever language; an apostrophe inside of a word quotes nothing.
_MARK: Final = r"""["«»\u2018-\u201f\u2039\u203a\u300c-\u300f]"""
_QUOTED: Final = re.compile(rf"{_MARK}.*{_MARK}|(?<!\w)'.*'(?!\w)|\b0x[0-9a-fA-F ]+", re.DOTALL)
_ROWS: Final = re.compile(r"""(?<!\w)'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\brow (\d+)\b""")
_UNSENDABLE: Final = re.compile(r"invalid input for query argument (\$\d+)")
_EXPECTED: Final = re.compile(r"\((expected \w+, got \w+)\)\Z")
# Their primary messages are of fixed words; PL handlers' source files are none of these.
_FIXED_WORDS: Final = {"40001", "40P01", "55P03", "57014", "57P01", "57P02", "57P03"}
_QUOTING_FILES: Final = {"tablespace.c"}  # the value of a setting
_CORE_FILES: Final = {"deadlock.c", "lock.c", "lmgr.c", "postgres.c", "predicate.c", "proc.c"}


def shown(name: object, most: int = MAX_SHOWN) -> str:
    """A name, an id or a key in quotes: what can't be printed is escaped, and the rest is cut."""
    if not isinstance(name, str):
        return escaped(repr(name), most)
    text = str.__str__(name)  # of whatever class
    return repr(text) if len(text) <= most else f"{text[:most]!r}…"


def command(schema: str | None, *words: str) -> str:
    """How to run one of our commands, for the tables of a schema where that is named."""
    place = () if schema is None else (f"QORTEX_DB_SCHEMA={shlex.quote(schema)}",)
    return f"`{' '.join((*place, 'qortex-db', *words))}`"


def with_rows_called(message: str, called: Callable[[int], str]) -> str:
    """A message of ours that names rows by their places, with other words for them.

    What is in quotes, such as an id, stays as it is.
    """
    return _ROWS.sub(lambda found: called(int(found[1])) if found[1] else found[0], message)


def escaped(text: str, most: int = _MAX_MESSAGE) -> str:
    """Text on one line, cut: a newline in it would begin another line of a log."""
    return visible(text if len(text) <= most else f"{text[:most]}…")


def visible(text: str) -> str:
    """Text with the escapes of what can't be seen, or turns the text around it; spaces stay.

    A name may hold what a terminal obeys, or another line, as of a message that is none of ours.
    """
    if text.isprintable():
        return text
    return "".join(
        each
        if each.isprintable() or unicodedata.category(each) == "Zs"
        else each.encode("unicode_escape").decode()
        for each in text
    )


def scrubbed(text: str) -> str:
    """Somebody else's message without what it quotes, on one line, cut."""
    return escaped(_QUOTED.sub("…", text), 200)


def said_by_server(error: BaseException, state: str) -> str:
    """A server's primary message as far as it quotes no value; else what kind of error it is.

    What a function or a trigger raises may say anything, with any SQLSTATE; its context tells that
    it was one. Bad data, and syntax errors, are quoted by the server itself.
    """
    for cause in causes(error):
        message = getattr(cause, "message", None)
        if not isinstance(message, str):
            continue
        file = getattr(cause, "server_source_filename", None) or ""
        context = getattr(cause, "context", None)
        by_server = state in _FIXED_WORDS and file in _CORE_FILES
        if state.startswith("P0") or file.startswith("pl") or (context and not by_server):
            return f"{type(cause).__name__}, in a function or trigger"
        quotes = state.startswith("22") or state == "42601" or file in _QUOTING_FILES
        return scrubbed(message) if quotes else escaped(message)
    return type(list(causes(error))[-1]).__name__


def said_by_driver(error: BaseException) -> str:
    """The driver's own message without values; of one that it can't send, which it is, and why."""
    said = str(error.args[0]) if error.args else ""
    if found := _UNSENDABLE.match(said):
        expected = _EXPECTED.search(said)
        return f"argument {found[1]}" + (f", {expected[1]}" if expected else "")
    return f"{type(error).__name__}: {scrubbed(said)}"


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that it came from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = getattr(seen, "orig", None) or seen.__cause__
