"""What a filter is read into."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from sqlalchemy import Table

    from qortex_db.filters.fields import Path

Shape: TypeAlias = tuple[Any, ...]
"""A filter without its values: a form, its path and constants; or "and", "or", "not" and shapes."""
Reader: TypeAlias = Callable[["Table", "Path", Any, str, list[Any]], Shape]
"""Reads an operator's argument: the table, the path, the argument, what an error calls it, and the
values to append to."""
