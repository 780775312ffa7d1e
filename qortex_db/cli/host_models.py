"""A host's own models, which a command is told of by their name in Python."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import MetaData

from qortex_db.cli import render
from qortex_db.cli.shell import fail
from qortex_db.status import missing_tables

if TYPE_CHECKING:
    from sqlalchemy import Table

    from qortex_db import Database, Settings


class HostModels(NamedTuple):
    """What a host declares.

    Attributes:
        name: As it was given.
        metadata: Each one once.
    """

    name: str
    metadata: list[MetaData]

    @property
    def tables(self) -> list[Table]:
        """All of them."""
        return [table for each in self.metadata for table in each.tables.values()]


def load(given: str | None, settings: Settings) -> HostModels:
    """Import what the option names, or else the environment; nothing is named by neither.

    A module is looked for in the current folder too, as by Alembic.
    """
    name = given or settings.metadata or ""
    if not name:
        return HostModels("", [])
    found = [metadata_of(part.strip()) for part in name.split(",")]
    models = HostModels(name, list(dict.fromkeys(found)))
    if not models.tables:
        fail(f"--metadata {name} declares no table; import the modules of its models there.")
    return models


def metadata_of(name: str, *, option: str = "--metadata") -> MetaData:
    """What a name in Python declares."""
    module, _, attribute = name.partition(":")
    if not (module and attribute):
        fail(f"{option} {name} has to be package.module:Base, or a MetaData's name.", status=2)
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        fail(f"There is no module {error.name} for {option} {name}: run it where that is.")
    for part in attribute.split("."):
        found = getattr(found, part, None)  # type: ignore[assignment]
    metadata = found if isinstance(found, MetaData) else getattr(found, "metadata", None)
    if not isinstance(metadata, MetaData):
        fail(f"{name} is neither a declarative base nor a MetaData.")
    return metadata


def load_model(name: str, *, option: str = "The model") -> Any:
    """Import one model, or whatever else an option names."""
    module, _, attribute = name.partition(":")
    if not (module and attribute):
        fail(f"{option} has to be package.module:Name.", status=2)
    if (here := str(Path.cwd())) not in sys.path:  # as Python's own -m has it
        sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        fail(f"{option} {name} is not there ({type(error).__name__}).", status=2)


async def check_there(db: Database, settings: Settings, models: HostModels) -> None:
    """End with an error if the database lacks a table."""
    if missing := await missing_tables(db.executor, models.tables, settings.db_schema):
        fail(render.missing(models.name, missing))
