"""A table of idempotency keys: what was counted under one is not counted again.

A new table, so nothing waits for it, and so that its index is built at once.
"""

from alembic import context, op

revision = "qortex_db_0013"
down_revision = "qortex_db_0012"
branch_labels = None
depends_on = None

TABLE = "qortex_db_idempotency_keys"
COMMENTS = {
    "key": "What a caller named its call, or its unit of work",
    "digest": "SHA-256 of the method and its arguments, so that a key is of one call",
    "made_at": "When the transaction that took the key began; older ones are pruned",
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
            key text NOT NULL,
            digest bytea NOT NULL,
            made_at timestamp with time zone DEFAULT now() NOT NULL,
            CONSTRAINT pk_{TABLE} PRIMARY KEY (key)
        )
        """
    )
    op.execute(f"CREATE INDEX ix_{TABLE}_made_at ON {_prefix()}{TABLE} (made_at)")
    _give_to_owner()
    for column, comment in COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN {_prefix()}{TABLE}.{column} IS '{comment}'")


def downgrade() -> None:
    _wait_briefly()
    op.execute(f"DROP TABLE {_prefix()}{TABLE}")
