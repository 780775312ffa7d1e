"""The examples of a page of the documentation, to be run."""

from __future__ import annotations

import functools
import re
import textwrap
from typing import Any

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def program(*blocks: str, **given: Any) -> Any:
    """The blocks of a page, in their order, as one coroutine function.

    Args:
        given: What they find under a name, and may give another value.
    """
    body = textwrap.indent("\n".join(blocks), "    ")
    space: dict[str, Any] = {}
    code = f"async def main({', '.join(given)}):\n{body}\n"
    exec(compile(code, "<docs>", "exec", dont_inherit=True), space)  # noqa: S102 - our own
    return functools.partial(space["main"], **given)
