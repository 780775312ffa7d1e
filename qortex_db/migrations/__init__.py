"""The schema's history: upgrade, downgrade, check, adopt, rebuild. Alone in knowing Alembic."""

import qortex_db.migrations.autogenerate  # noqa: F401 - registers comparisons and operations
from qortex_db.migrations.adoption import adopt
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
from qortex_db.migrations.indexes import IndexProgress, RebuiltIndex, rebuild_index
from qortex_db.migrations.pending import pending_indexes
from qortex_db.migrations.report import AdoptedTable, Adoption, AdoptionRefusedError

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
