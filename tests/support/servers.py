"""Databases on a server of tests'."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from qortex_db.testing import Server

_numbers = itertools.count()


def execute(server: Server, *statements: str, database: str | None = None) -> None:
    server.execute(*statements, database=database)


def new_name(beginning: str) -> str:
    """For a database of a module's: its fixture is set up again where tests change the worker."""
    return f"{beginning}_{next(_numbers)}"


def copied(server: Server, template: str) -> AbstractContextManager[str]:
    """A database of one test's own."""
    return server.database(template)
