"""What the repositories offer, for the tests that call all of it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from qortex_db import repositories

if TYPE_CHECKING:
    from collections.abc import Callable


def public_methods() -> set[Callable[..., Any]]:
    """Every public method of every repository."""
    kinds = [getattr(repositories, n) for n in repositories.__all__ if n.endswith("Repository")]
    return {
        method
        for kind in kinds
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }
