"""What a host's `env.py` takes from this package, so that two histories share one database."""

from __future__ import annotations

from typing import TYPE_CHECKING

# Registers pgvector's types with SQLAlchemy's reflection.
import pgvector.sqlalchemy  # noqa: F401

import qortex_db.models  # noqa: F401 - names our tables
from qortex_db.names import own_tables
from qortex_db.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.sql.schema import SchemaItem

_OURS = {Settings.model_fields["version_table"].default, *own_tables}


def include_name(
    name: str | None,
    type_: str,
    parent_names: Mapping[str, str | None],  # noqa: ARG001 - Alembic's signature
) -> bool:
    """Leave this package's tables, in any schema, out of what a host's autogenerate looks up.

    Pass it to a host's `context.configure`; a host that declares our tables in a metadata of its
    own needs `include_object` beside it.
    """
    return type_ != "table" or name not in _OURS


def include_object(
    _object: SchemaItem,
    name: str | None,
    type_: str,
    _reflected: bool,  # noqa: FBT001 - Alembic's signature
    _compare_to: SchemaItem | None,
) -> bool:
    """Leave this package's tables out of a host's autogenerate where its metadata declares them."""
    return include_name(name, type_, {})
