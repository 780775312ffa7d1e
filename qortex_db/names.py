"""Identifiers: what PostgreSQL takes for one, and the names that indexes are given; literals."""

from __future__ import annotations

import hashlib
import re
from typing import Final

MAX_NAME_BYTES: Final = 63
"""What PostgreSQL keeps of an identifier."""

own_tables: Final[set[str]] = set()
"""The package's own, as its models name them; what is missing elsewhere is for a host to make."""
own_columns: Final[set[str]] = set()
"""The columns of these."""

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,62}")


def is_identifier(name: str) -> bool:
    """Whether it is one of ASCII, to be quoted for its case at most."""
    return _IDENTIFIER.fullmatch(name) is not None


def is_plain(text: str) -> bool:
    """Whether it has letters, digits and underscores of ASCII only, as a part of a name may."""
    return text.isascii() and text.replace("_", "").isalnum()


def plain_name(text: str) -> str:
    """Another's name as one that `is_plain`, as far as it has letters or digits; "" if it has none.

    It is in lower case, and may begin with a digit.
    """
    plain = "".join(each if each.isascii() and each.isalnum() else "_" for each in text.lower())
    return plain.strip("_")


def hashed(text: str) -> str:
    """What tells a text from others in a name."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def qualified(*parts: str | None) -> str:
    """A name as SQL and `to_regclass` take it, quoted; None leaves a part to the search path."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts if part)


def literal(text: str) -> str:
    """A text in SQL: the same whatever `standard_conforming_strings` is."""
    quoted = "'" + text.replace("'", "''") + "'"
    return "E" + quoted.replace("\\", "\\\\") if "\\" in text else quoted


def index_name(name: str, readable: str | None = None) -> str:
    """A name that an index can have: what is changed or cut of it is told by a hash at the end.

    Args:
        name: As it should be; two indexes differ in it.
        readable: As it is shown, unless the same.
    """
    shown = name if readable is None else readable
    if shown == name and len(name.encode()) <= MAX_NAME_BYTES:
        return name
    cut = shown.encode()[: MAX_NAME_BYTES - 9].decode(errors="ignore")
    return f"{cut}_{hashed(name)}"
