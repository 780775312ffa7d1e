"""Vectors get a payload, a document and times.

Metadata only on a table of any size: each default is a constant for the rows that are there.
`created_at` may be there already, in a table that qortex 0.8 made.
"""

from alembic import context, op

revision = "qortex_db_0002"
down_revision = "qortex_db_0001"
branch_labels = None
depends_on = None


def _prefix() -> str:
    options = context.config.attributes.get("qortex_db", {})
    schema = options.get("schema") or context.get_x_argument(as_dictionary=True).get("schema")
    return f'"{schema}".' if schema else ""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute(
        f"""
        ALTER TABLE {_prefix()}qortex_vectors
            ADD COLUMN payload jsonb DEFAULT '{{}}'::jsonb NOT NULL,
            ADD COLUMN document text,
            ADD COLUMN IF NOT EXISTS created_at timestamp with time zone DEFAULT now(),
            ADD COLUMN updated_at timestamp with time zone DEFAULT now()
        """
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    op.execute(
        f"""
        ALTER TABLE {_prefix()}qortex_vectors
            DROP COLUMN updated_at,
            DROP COLUMN created_at,
            DROP COLUMN document,
            DROP COLUMN payload
        """
    )
