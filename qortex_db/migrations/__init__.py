"""The schema's history: upgrade, downgrade, check, adopt, rebuild. Alone in knowing Alembic."""

import qortex_db.migrations.autogenerate.compare  # noqa: F401 - registers comparisons and operations
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
from qortex_db.migrations.drift import Drift, drift
from qortex_db.migrations.host import include_name, include_object
from qortex_db.migrations.rebuild.indexes import IndexProgress, RebuiltIndex, rebuild_index
from qortex_db.migrations.rebuild.pending import pending_indexes

__all__ = [
    "AdoptedTable",
    "Adoption",
    "AdoptionRefusedError",
    "Drift",
    "IndexProgress",
    "RebuiltIndex",
    "SchemaState",
    "adopt",
    "check",
    "downgrade",
    "drift",
    "head_revision",
    "include_name",
    "include_object",
    "locate",
    "pending_indexes",
    "rebuild_index",
    "upgrade",
    "upgrade_sql",
]
