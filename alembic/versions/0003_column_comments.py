"""Columns say what they hold, in which unit: for people at a psql prompt, and for the docs."""

from alembic import context, op

revision = "qortex_db_0003"
down_revision = "qortex_db_0002"
branch_labels = None
depends_on = None

COMMENTS = {
    "qortex_vectors": {
        "id": "The caller's key, 1 to 1,024 bytes of UTF-8",
        "vec": "float4 components; as many as chosen at the first upgrade",
        "payload": "A JSON object to filter by",
        "document": "The text that the embedding was computed from",
        "created_at": "When the row was inserted",
        "updated_at": "When the row last changed; unchanged rows are left alone",
    },
    "interoception_factors": {
        "node_id": "The node's key",
        "weight": "Multiplier of a seed's share: 1.0 neutral; feedback keeps it within 0.1 to 5.0",
        "updated_at": "When the weight last changed",
    },
    "interoception_edge_buffer": {
        "src_id": "The smaller id of the pair, by code point",
        "tgt_id": "The larger id of the pair, by code point",
        "hit_count": "How often the pair was observed",
        "scores": "The newest 100 scores, oldest first",
        "last_seen": "When the pair was last observed",
    },
    "learning_arm_states": {
        "learner_name": "The bandit's name",
        "context_hash": "'default', or 16 hex digits of the SHA-256 of the context's JSON",
        "arm_id": "The candidate's key",
        "alpha": "Beta posterior: 1 + the rewards",
        "beta": "Beta posterior: 1 + what the rewards missed",
        "pulls": "How many rewards were observed",
        "total_reward": "The sum of the rewards, each 0 to 1",
        "last_updated": "When the state last changed",
    },
}


def _prefix() -> str:
    options = context.config.attributes.get("qortex_db", {})
    schema = options.get("schema") or context.get_x_argument(as_dictionary=True).get("schema")
    return f'"{schema}".' if schema else ""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    for table, columns in COMMENTS.items():
        for column, comment in columns.items():
            text = comment.replace("'", "''")
            op.execute(f"COMMENT ON COLUMN {_prefix()}{table}.{column} IS '{text}'")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    for table, columns in COMMENTS.items():
        for column in columns:
            op.execute(f"COMMENT ON COLUMN {_prefix()}{table}.{column} IS NULL")
