"""A table of indexed documents: what an index of a framework last wrote, and of what source.

A new table, so nothing waits for it, and so that its indexes are built at once.
"""

from alembic import context, op

revision = "qortex_db_0017"
down_revision = "qortex_db_0016"
branch_labels = None
depends_on = None

TABLE = "qortex_db_indexed_documents"
COMMENTS = {
    "namespace": "Whose documents: the name of an index",
    "key": "What the framework calls the document: mostly a hash of what it says",
    "group_id": "The source that it is of, such as a file",
    "updated_at": "When it was last indexed, by the clock of the server",
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
            namespace text NOT NULL,
            key text NOT NULL,
            group_id text,
            updated_at timestamp with time zone NOT NULL,
            CONSTRAINT pk_{TABLE} PRIMARY KEY (namespace, key)
        )
        """
    )
    for columns in (("namespace", "group_id"), ("namespace", "updated_at")):
        op.execute(
            f"CREATE INDEX ix_{TABLE}_{'_'.join(columns)} "
            f"ON {_prefix()}{TABLE} ({', '.join(columns)})"
        )
    _give_to_owner()
    for column, comment in COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN {_prefix()}{TABLE}.{column} IS '{comment}'")


def downgrade() -> None:
    _wait_briefly()
    op.execute(f"DROP TABLE {_prefix()}{TABLE}")
