"""The examples of the pages of the API: in `docs/api/examples` one file a page, in their order.

An example follows what it is an example of, each a line of comment. The pages show it beside that,
and what stands before the first at their top; the tests run a file from its beginning to its end.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parent / "api/examples"
_HEAD = re.compile(r"^((?:# qortex_db\.[\w.]+\n)+)", re.MULTILINE)


def examples(path: Path) -> Iterator[tuple[list[str], str]]:
    """The names and the code of each example of a file."""
    _, *parts = _HEAD.split(path.read_text())
    for names, code in zip(parts[::2], parts[1::2], strict=True):
        yield names.replace("# ", "").split(), code.strip()


def by_name() -> dict[str, str]:
    """The code of all examples, by what they are examples of."""
    return {
        name: code
        for path in sorted(FOLDER.glob("*.py"))
        for names, code in examples(path)
        for name in names
    }
