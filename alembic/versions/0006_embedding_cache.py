"""A cache of embeddings, by the hash of their text and the model.

A new table, so nothing waits for it. Its column needs no index of pgvector's: it is never searched.
"""

import sqlalchemy as sa
from alembic import context, op

revision = "qortex_db_0006"
down_revision = "qortex_db_0005"
branch_labels = None
depends_on = None

COMMENTS = {
    "text_hash": "SHA-256 of the text in UTF-8",
    "model": "The model's name",
    "revision": "The model's revision, '' where it has none",
    "dimensions": "How many were asked for; 0: as many as the model gives",
    "vec": "float4 components, as the model gave them",
    "last_used": "When the row was stored or read, to the hour",
}


def _option(name: str, default: str) -> str:
    options = context.config.attributes.get("qortex_db", {})
    return options.get(name) or context.get_x_argument(as_dictionary=True).get(name) or default


def _prefix() -> str:
    schema = _option("schema", "")
    return f'"{schema}".' if schema else ""


def _extension_prefix() -> str:
    """Where the baseline found or put the extension, which need not be on the search path."""
    if context.is_offline_mode():
        schema = _option("extension_schema", "")
        return f'"{schema}".' if schema else ""
    place = sa.text(
        "SELECT quote_ident(nspname) || '.' FROM pg_extension "
        "JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'vector'"
    )
    return op.get_bind().scalar(place) or ""


def _wait_briefly() -> None:
    op.execute(f"SET LOCAL lock_timeout = '{_option('lock_timeout', '500ms')}'")


def upgrade() -> None:
    _wait_briefly()
    op.execute(
        f"""
        CREATE TABLE {_prefix()}qortex_embedding_cache (
            text_hash bytea NOT NULL,
            model text NOT NULL,
            revision text NOT NULL,
            dimensions integer NOT NULL,
            vec {_extension_prefix()}vector NOT NULL,
            last_used timestamp with time zone DEFAULT now() NOT NULL,
            CONSTRAINT pk_qortex_embedding_cache
                PRIMARY KEY (text_hash, model, revision, dimensions)
        )
        """
    )
    # A superuser may migrate what belongs to another role, who has to be able to use this too.
    op.execute(
        f"DO 'BEGIN EXECUTE ''ALTER TABLE {_prefix()}qortex_embedding_cache OWNER TO '' "  # noqa: S608 - identifiers
        "|| (SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class "
        f"WHERE oid = ''{_prefix()}qortex_vectors''::regclass); END'"
    )
    for column, comment in COMMENTS.items():
        text = comment.replace("'", "''")
        op.execute(f"COMMENT ON COLUMN {_prefix()}qortex_embedding_cache.{column} IS '{text}'")


def downgrade() -> None:
    _wait_briefly()
    op.execute(f"DROP TABLE {_prefix()}qortex_embedding_cache")
