"""The schema's history: upgrade, downgrade, check. Alone in knowing Alembic."""

from qortex_db.migrations.commands import (
    SchemaState,
    check,
    downgrade,
    head_revision,
    locate,
    upgrade,
    upgrade_sql,
)

__all__ = [
    "SchemaState",
    "check",
    "downgrade",
    "head_revision",
    "locate",
    "upgrade",
    "upgrade_sql",
]
