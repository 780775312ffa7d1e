"""The examples of a page of the documentation, to be run."""

from __future__ import annotations

import re
import textwrap
from typing import Any

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def program(*blocks: str) -> Any:
    """The blocks of a page, in their order, as one coroutine function."""
    body = textwrap.indent("\n".join(blocks), "    ")
    space: dict[str, Any] = {}
    code = f"async def main():\n{body}\n"
    exec(compile(code, "<docs>", "exec", dont_inherit=True), space)  # noqa: S102 - our own
    return space["main"]
