"""Our part of autogenerate, which Alembic finds by its entry point when it is imported.

Before 1.18 it looks for none: there ours is registered as soon as an `env.py`, or the models that
are imported by it, import this package.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_set_up: list[str] = []


def setup(plugin: Any) -> None:
    """Called by Alembic in the middle of its own import: what needs it is imported when called."""
    util: Any = importlib.import_module("alembic.util")
    last = util.DispatchPriority.LAST
    plugin.add_autogenerate_comparator(_compare_indexes, "table", priority=last)
    plugin.add_autogenerate_comparator(_arrange, "schema", priority=last)
    _set_up.append(plugin.name)


def is_set_up() -> bool:
    """Whether Alembic has found the entry point; else its own registry has to be told."""
    return bool(_set_up)


def register_with_older() -> None:
    """Tell an Alembic that is there already, and looks for no entry points."""
    if not _set_up and hasattr(sys.modules.get("alembic"), "op"):  # the last of its imports
        importlib.import_module("qortex_db.migrations")


def _compare_indexes(*arguments: Any) -> None:
    _comparisons().compare_indexes(*arguments)


def _arrange(*arguments: Any) -> None:
    _comparisons().arrange(*arguments)


def _comparisons() -> Any:
    return importlib.import_module("qortex_db.migrations.autogenerate.compare")


class _Plugin(ModuleType):
    """Alembic 1.18 and 1.19 take an entry point for a collection of modules."""

    def __iter__(self) -> Iterator[ModuleType]:
        yield self


sys.modules[__name__].__class__ = _Plugin
