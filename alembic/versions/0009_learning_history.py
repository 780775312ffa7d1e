"""A history of what learners did, and the contexts that their hashes stand for.

New tables, so nothing waits for them. The key of the events leads with what a state is asked by,
and ends with the order of one arm's changes: no other index is needed.
"""

from alembic import context, op

revision = "qortex_db_0009"
down_revision = "qortex_db_0008"
branch_labels = None
depends_on = None

COMMENTS = {
    "learning_events": {
        "learner_name": "The bandit's name",
        "context_hash": "The arm's context; learning_contexts says what it stands for",
        "arm_id": "The candidate's key",
        "id": "The order of one arm's events, which is that of its changes",
        "kind": "observe, deltas, decay, put, seed, reset, delete; or select, which changes none",
        "alpha_added": "observe, deltas: what was added to alpha, before its floor",
        "beta_added": "observe, deltas: what was added to beta, before its floor",
        "pulls_added": "observe, deltas: how many pulls were counted",
        "multiplied_by": "decay: what alpha, beta and total_reward were multiplied by",
        "probability": "select: how likely the arm was to be chosen, above 0 to 1",
        "alpha": "After the change; NULL after delete and for select",
        "beta": "After the change; NULL after delete and for select",
        "pulls": "After the change; NULL after delete and for select",
        "total_reward": "After the change; NULL after delete and for select",
        "last_updated": "The state's own time after the change",
        "recorded_at": "When the transaction of the change began",
    },
    "learning_contexts": {
        "context_hash": "16 hex digits of the SHA-256 of the context's JSON",
        "context": "What the hash stands for",
        "recorded_at": "When it was first seen with the history on",
    },
}


def _option(name: str, default: str) -> str:
    options = context.config.attributes.get("qortex_db", {})
    return options.get(name) or context.get_x_argument(as_dictionary=True).get(name) or default


def _prefix() -> str:
    schema = _option("schema", "")
    return f'"{schema}".' if schema else ""


def _wait_briefly() -> None:
    op.execute(f"SET LOCAL lock_timeout = '{_option('lock_timeout', '500ms')}'")


def _give_to_owner(table: str) -> None:
    # A superuser may migrate what belongs to another role, who has to be able to use this too.
    op.execute(
        f"DO 'BEGIN EXECUTE ''ALTER TABLE {_prefix()}{table} OWNER TO '' "  # noqa: S608 - identifiers
        "|| (SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class "
        f"WHERE oid = ''{_prefix()}learning_arm_states''::regclass); END'"
    )


def upgrade() -> None:
    _wait_briefly()
    op.execute(
        f"""
        CREATE TABLE {_prefix()}learning_events (
            learner_name text NOT NULL,
            context_hash text NOT NULL,
            arm_id text NOT NULL,
            id bigint GENERATED ALWAYS AS IDENTITY,
            kind text NOT NULL,
            alpha_added double precision,
            beta_added double precision,
            pulls_added integer,
            multiplied_by double precision,
            probability double precision,
            alpha double precision,
            beta double precision,
            pulls integer,
            total_reward double precision,
            last_updated timestamp with time zone,
            recorded_at timestamp with time zone DEFAULT now() NOT NULL,
            CONSTRAINT pk_learning_events PRIMARY KEY (learner_name, context_hash, arm_id, id)
        )
        """
    )
    op.execute(
        f"""
        CREATE TABLE {_prefix()}learning_contexts (
            context_hash text NOT NULL,
            context jsonb NOT NULL,
            recorded_at timestamp with time zone DEFAULT now() NOT NULL,
            CONSTRAINT pk_learning_contexts PRIMARY KEY (context_hash)
        )
        """
    )
    for table, columns in COMMENTS.items():
        _give_to_owner(table)
        for column, comment in columns.items():
            text = comment.replace("'", "''")
            op.execute(f"COMMENT ON COLUMN {_prefix()}{table}.{column} IS '{text}'")


def downgrade() -> None:
    _wait_briefly()
    op.execute(f"DROP TABLE {_prefix()}learning_contexts")
    op.execute(f"DROP TABLE {_prefix()}learning_events")
