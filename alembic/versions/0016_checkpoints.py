"""A table of checkpoints: how far long work is, so that it goes on where it was stopped.

A new table, so nothing waits for it. A batch and its checkpoint are one transaction.
"""

from alembic import context, op

revision = "qortex_db_0016"
down_revision = "qortex_db_0015"
branch_labels = None
depends_on = None

TABLE = "qortex_db_checkpoints"
COMMENTS = {
    "work": "What is done, and with what: its source and its table",
    "position": "Where it goes on; null before the first batch",
    "rows_read": "How many rows it has read",
    "rows_written": "How many of them it wrote; the others were as they are",
    "rows_rejected": "How many of them were no good",
    "began_at": "When it last began anew",
    "updated_at": "When its last batch was committed",
    "finished_at": "When it reached the end",
}


def _option(name: str, default: str) -> str:
    options = context.config.attributes.get("qortex_db", {})
    return options.get(name) or context.get_x_argument(as_dictionary=True).get(name) or default


def _prefix() -> str:
    schema = _option("schema", "")
    return f'"{schema}".' if schema else ""


def _wait_briefly() -> None:
    op.execute(f"SET LOCAL lock_timeout = '{_option('lock_timeout', '500ms')}'")


def _give_to_owner() -> None:
    # A superuser may migrate what belongs to another role, who has to be able to use this too.
    op.execute(
        f"DO 'BEGIN EXECUTE ''ALTER TABLE {_prefix()}{TABLE} OWNER TO '' "  # noqa: S608 - identifiers
        "|| (SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class "
        f"WHERE oid = ''{_prefix()}learning_arm_states''::regclass); END'"
    )


def upgrade() -> None:
    _wait_briefly()
    op.execute(
        f"""
        CREATE TABLE {_prefix()}{TABLE} (
            work text NOT NULL,
            position jsonb,
            rows_read bigint DEFAULT 0 NOT NULL,
            rows_written bigint DEFAULT 0 NOT NULL,
            rows_rejected bigint DEFAULT 0 NOT NULL,
            began_at timestamp with time zone DEFAULT now() NOT NULL,
            updated_at timestamp with time zone DEFAULT now() NOT NULL,
            finished_at timestamp with time zone,
            CONSTRAINT pk_{TABLE} PRIMARY KEY (work)
        )
        """
    )
    _give_to_owner()
    for column, comment in COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN {_prefix()}{TABLE}.{column} IS '{comment}'")


def downgrade() -> None:
    _wait_briefly()
    op.execute(f"DROP TABLE {_prefix()}{TABLE}")
