"""Vectors get a column for the words of their documents, by which many are ranked quickly.

Metadata only on a table of any size, and no trigger: it is NULL in the rows that are there, until
`qortex-db fill-words`, and in what others write. Searches find those by the index of words.
"""

from alembic import context, op

revision = "qortex_db_0012"
down_revision = "qortex_db_0011"
branch_labels = None
depends_on = None


def _option(name: str, default: str) -> str:
    options = context.config.attributes.get("qortex_db", {})
    return options.get(name) or context.get_x_argument(as_dictionary=True).get(name) or default


def _prefix() -> str:
    schema = _option("schema", "")
    return f'"{schema}".' if schema else ""


def _wait_briefly() -> None:
    op.execute(f"SET LOCAL lock_timeout = '{_option('lock_timeout', '500ms')}'")


def upgrade() -> None:
    _wait_briefly()
    op.execute(f"ALTER TABLE {_prefix()}qortex_vectors ADD COLUMN document_words tsvector")
    op.execute(
        f"COMMENT ON COLUMN {_prefix()}qortex_vectors.document_words IS "
        "'The words of the document, to rank it by; kept by what qortex-db writes'"
    )


def downgrade() -> None:
    _wait_briefly()
    op.execute(f"ALTER TABLE {_prefix()}qortex_vectors DROP COLUMN document_words")
