"""A table of changeovers: which tables change the model of their embeddings, and how far that is.

A new table, so nothing waits for it. It has a row for each table that an operation of a revision
gives a second column of embeddings, and until then nothing reads it.
"""

from alembic import context, op

revision = "qortex_db_0015"
down_revision = "qortex_db_0014"
branch_labels = None
depends_on = None

TABLE = "qortex_db_changeovers"
COMMENTS = {
    "table_name": "Schema and table, as SQL names them",
    "column_name": "The column of the old embeddings",
    "old_name": "What those are called meanwhile",
    "new_name": "What the new embeddings are called, and their column",
    "metric": "What the new ones are compared by",
    "storage": "Of the new ones: full or half",
    "quantization": "Of the new ones'' index: half or binary",
    "is_switched": "Whether searches use the new ones",
    "is_closing": "Whether writes without the new ones are refused, before the switch too",
    "model": "The embedder that the new ones are of: its name, and @ its revision",
    "began_at": "When the column was added",
    "switched_at": "When searches were last switched, there or back",
    "ended_at": "When the old ones were dropped",
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
            table_name text NOT NULL,
            column_name text NOT NULL,
            old_name text NOT NULL,
            new_name text NOT NULL,
            metric text NOT NULL,
            storage text NOT NULL,
            quantization text,
            is_switched boolean DEFAULT false NOT NULL,
            is_closing boolean DEFAULT false NOT NULL,
            model text,
            began_at timestamp with time zone DEFAULT now() NOT NULL,
            switched_at timestamp with time zone,
            ended_at timestamp with time zone,
            CONSTRAINT pk_{TABLE} PRIMARY KEY (table_name)
        )
        """
    )
    _give_to_owner()
    for column, comment in COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN {_prefix()}{TABLE}.{column} IS '{comment}'")


def downgrade() -> None:
    _wait_briefly()
    op.execute(f"DROP TABLE {_prefix()}{TABLE}")
