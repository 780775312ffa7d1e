"""The four tables, as documented by qortex.

Options come from `config.attributes["qortex_db"]`, then from `-x name=value`:
- dimensions: what the embedding column holds, 1 to 2,000 (384);
- schema: where the tables go (where the connection resolves to);
- create_extension: false leaves `CREATE EXTENSION vector` to an administrator (true);
- extension_schema: where the extension goes, or is (where the connection resolves to).
"""

import re

from alembic import context, op

revision = "qortex_db_0001"
down_revision = None
branch_labels = ("qortex_db",)
depends_on = None

MAX_HNSW_DIMENSIONS = 2000


def _option(name: str, default: object = None) -> object:
    value = context.config.attributes.get("qortex_db", {}).get(name)
    if value is None:
        value = context.get_x_argument(as_dictionary=True).get(name)
    return default if value in (None, "") else value


def _prefix(option: str) -> str:
    name = _option(option)
    if name is None:
        return ""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]{0,62}", str(name)):
        raise ValueError(f"{option} is no identifier of 1 to 63 letters, digits, _ and $")
    return f'"{name}".'


def _dimensions() -> int:
    text = str(_option("dimensions", 384))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_HNSW_DIMENSIONS:
        raise ValueError(
            f"dimensions has to be a whole number from 1 to {MAX_HNSW_DIMENSIONS}: an HNSW index "
            "on a vector column holds no more"
        )
    return int(text)


def _create_schema(prefix: str) -> None:
    # IF NOT EXISTS alone wants the right to create schemas even where this one is there.
    if prefix:
        name = prefix[:-1]
        op.execute(
            f"DO 'BEGIN IF to_regnamespace(''{name}'') IS NULL THEN "
            f"CREATE SCHEMA IF NOT EXISTS {name}; END IF; END'"
        )


def upgrade() -> None:
    dimensions, schema, extension = _dimensions(), _prefix("schema"), _prefix("extension_schema")
    op.execute("SET LOCAL lock_timeout = '4s'")
    _create_schema(schema)
    if str(_option("create_extension", default=True)).lower() not in ("false", "0", "no", "off"):
        _create_schema(extension)
        place = f" WITH SCHEMA {extension[:-1]}" if extension else ""
        op.execute(f"CREATE EXTENSION IF NOT EXISTS vector{place}")
    op.execute(
        f"""
        CREATE TABLE {schema}qortex_vectors (
            id text NOT NULL,
            vec {extension}vector({dimensions}),
            CONSTRAINT pk_qortex_vectors PRIMARY KEY (id)
        )
        """
    )
    op.execute(
        f"""
        CREATE INDEX ix_qortex_vectors_vec ON {schema}qortex_vectors
            USING hnsw (vec {extension}vector_cosine_ops)
        """
    )
    op.execute(
        f"""
        CREATE TABLE {schema}interoception_factors (
            node_id text NOT NULL,
            weight double precision DEFAULT 1.0 NOT NULL,
            updated_at timestamp with time zone DEFAULT now(),
            CONSTRAINT pk_interoception_factors PRIMARY KEY (node_id)
        )
        """
    )
    op.execute(
        f"""
        CREATE TABLE {schema}interoception_edge_buffer (
            src_id text NOT NULL,
            tgt_id text NOT NULL,
            hit_count integer DEFAULT 0 NOT NULL,
            scores jsonb DEFAULT '[]'::jsonb NOT NULL,
            last_seen timestamp with time zone DEFAULT now(),
            CONSTRAINT pk_interoception_edge_buffer PRIMARY KEY (src_id, tgt_id)
        )
        """
    )
    op.execute(
        f"""
        CREATE TABLE {schema}learning_arm_states (
            learner_name text NOT NULL,
            context_hash text NOT NULL,
            arm_id text NOT NULL,
            alpha double precision DEFAULT 1.0 NOT NULL,
            beta double precision DEFAULT 1.0 NOT NULL,
            pulls integer DEFAULT 0 NOT NULL,
            total_reward double precision DEFAULT 0.0 NOT NULL,
            last_updated timestamp with time zone DEFAULT now(),
            CONSTRAINT pk_learning_arm_states PRIMARY KEY (learner_name, context_hash, arm_id)
        )
        """
    )
    op.execute(
        f"""
        CREATE INDEX idx_learning_arm_states_context
            ON {schema}learning_arm_states (learner_name, context_hash)
        """
    )


def downgrade() -> None:
    # The extension and the schemas stay: others may use them.
    schema = _prefix("schema")
    op.execute("SET LOCAL lock_timeout = '4s'")
    for table in (
        "learning_arm_states",
        "interoception_edge_buffer",
        "interoception_factors",
        "qortex_vectors",
    ):
        op.execute(f"DROP TABLE {schema}{table}")
