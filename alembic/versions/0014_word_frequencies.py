"""A table of word frequencies: how many documents have a word, and how long they are.

A new table, so nothing waits for it. It is filled by a command, and until then nothing reads it.
"""

from alembic import context, op

revision = "qortex_db_0014"
down_revision = "qortex_db_0013"
branch_labels = None
depends_on = None

TABLE = "qortex_db_word_frequencies"
COMMENTS = {
    "table_name": "Whose documents: schema and table, as SQL names them",
    "word": "A lexeme, or '''' for all documents together",
    "documents": "How many documents have the word; of '''' how many there are",
    "mean_length": "Of '''': how many words a document has, repeated ones included",
    "counted_at": "Of '''': when they were counted",
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
            word text NOT NULL,
            documents bigint NOT NULL,
            mean_length double precision,
            counted_at timestamp with time zone,
            CONSTRAINT pk_{TABLE} PRIMARY KEY (table_name, word)
        )
        """
    )
    _give_to_owner()
    for column, comment in COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN {_prefix()}{TABLE}.{column} IS '{comment}'")


def downgrade() -> None:
    _wait_briefly()
    op.execute(f"DROP TABLE {_prefix()}{TABLE}")
