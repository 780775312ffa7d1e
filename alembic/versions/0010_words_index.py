"""Documents get a full-text index in which punctuation glues no words.

The old one goes in the next revision: until then searches of older processes use it.
"""

import sqlalchemy as sa
from alembic import context, op

revision = "qortex_db_0010"
down_revision = "qortex_db_0009"
branch_labels = None
depends_on = None


def _prefix() -> str:
    options = context.config.attributes.get("qortex_db", {})
    schema = options.get("schema") or context.get_x_argument(as_dictionary=True).get("schema")
    return f'"{schema}".' if schema else ""


def _build_index(name: str, on: str) -> None:
    """Build one while its table is in use; what a failed attempt left INVALID is dropped first."""
    with op.get_context().autocommit_block():
        op.execute("SET statement_timeout = 0")
        op.execute("SET lock_timeout = '10min'")  # for the transactions that are older
        if context.is_offline_mode() or _is_invalid(name):
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {_prefix()}{name}")
        op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {on}")
        op.execute("RESET lock_timeout")
        op.execute("RESET statement_timeout")


def _is_invalid(index: str) -> bool:
    valid = sa.text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
    return op.get_bind().scalar(valid, {"name": _prefix() + index}) is False


def _drop_index(name: str) -> None:
    with op.get_context().autocommit_block():
        op.execute("SET statement_timeout = 0")
        op.execute("SET lock_timeout = '10min'")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {_prefix()}{name}")
        op.execute("RESET lock_timeout")
        op.execute("RESET statement_timeout")


def upgrade() -> None:
    _build_index(
        "ix_qortex_vectors_words",
        f"{_prefix()}qortex_vectors USING gin (to_tsvector('english'::regconfig, "
        "translate(left(document, 100000), '/.-@<&+~', '        ')))",
    )


def downgrade() -> None:
    _drop_index("ix_qortex_vectors_words")
