"""The schema's history: upgrade, downgrade, check, adopt, rebuild. Alone in knowing Alembic."""

import qortex_db.migrations.autogenerate.compare  # registers comparisons and operations
import qortex_db.migrations.autogenerate.embedding_columns  # registers operations
import qortex_db.migrations.autogenerate.policies  # noqa: F401 - likewise
from qortex_db.migrations.adoption.adopt import adopt
from qortex_db.migrations.adoption.outcome import AdoptedTable, Adoption, AdoptionRefusedError
from qortex_db.migrations.commands import (
    SchemaState,
    check,
    downgrade,
    head_revision,
    locate,
    upgrade,
    upgrade_sql,
)
from qortex_db.migrations.distribution import By, distribute, distribution_sql
from qortex_db.migrations.drift import Drift, drift
from qortex_db.migrations.host import include_name, include_object
from qortex_db.migrations.model_changes import add_embedding_column, drop_embedding_column
from qortex_db.migrations.rebuild.building import IndexProgress, RebuiltIndex
from qortex_db.migrations.rebuild.indexes import rebuild_index
from qortex_db.migrations.rebuild.pending import pending_indexes
from qortex_db.migrations.roles import grant_roles, roles_sql

__all__ = [
    "AdoptedTable",
    "Adoption",
    "AdoptionRefusedError",
    "By",
    "Drift",
    "IndexProgress",
    "RebuiltIndex",
    "SchemaState",
    "add_embedding_column",
    "adopt",
    "check",
    "distribute",
    "distribution_sql",
    "downgrade",
    "drift",
    "drop_embedding_column",
    "grant_roles",
    "head_revision",
    "include_name",
    "include_object",
    "locate",
    "pending_indexes",
    "rebuild_index",
    "roles_sql",
    "upgrade",
    "upgrade_sql",
]
