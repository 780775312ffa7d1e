"""The schema's history: upgrade, downgrade, check, rebuild indexes. Alone in knowing Alembic."""

from qortex_db.migrations.commands import (
    SchemaState,
    check,
    downgrade,
    head_revision,
    locate,
    upgrade,
    upgrade_sql,
)
from qortex_db.migrations.indexes import IndexProgress, RebuiltIndex, rebuild_index

__all__ = [
    "IndexProgress",
    "RebuiltIndex",
    "SchemaState",
    "check",
    "downgrade",
    "head_revision",
    "locate",
    "rebuild_index",
    "upgrade",
    "upgrade_sql",
]
