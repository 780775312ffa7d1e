"""The constraints on arms hold for the rows that were there before them, too.

It reads the whole table, and blocks nobody who reads or writes. Where rows break a constraint it
refuses, and can be run again: what such a row should be, only its owner knows.
"""

import sqlalchemy as sa
from alembic import context, op

revision = "qortex_db_0008"
down_revision = "qortex_db_0007"
branch_labels = None
depends_on = None

CONSTRAINTS = {
    "ck_learning_arm_states_alpha_positive": "alpha > 0 AND alpha < 'infinity'",
    "ck_learning_arm_states_beta_positive": "beta > 0 AND beta < 'infinity'",
    "ck_learning_arm_states_pulls_counted": "pulls >= 0",
}
SHOWN = 5


def _option(name: str, default: str) -> str:
    options = context.config.attributes.get("qortex_db", {})
    return options.get(name) or context.get_x_argument(as_dictionary=True).get(name) or default


def _prefix() -> str:
    schema = _option("schema", "")
    return f'"{schema}".' if schema else ""


def _wait_briefly() -> None:
    op.execute(f"SET LOCAL lock_timeout = '{_option('lock_timeout', '500ms')}'")


def _check_rows(table: str) -> None:
    broken = "NOT (" + " AND ".join(CONSTRAINTS.values()) + ")"
    query = (
        "SELECT learner_name, context_hash, arm_id, count(*) OVER () "  # noqa: S608 - our own names
        f"FROM {table} WHERE {broken} ORDER BY 1, 2, 3 LIMIT {SHOWN}"
    )
    rows = op.get_bind().execute(sa.text(query)).all()
    if not rows:
        return
    count = rows[0][3]
    which = "; ".join(f"arm {arm!r} of {learner!r} in {place!r}" for learner, place, arm, _ in rows)
    mend = (
        f"UPDATE {table} SET alpha = DEFAULT, beta = DEFAULT, pulls = DEFAULT, "  # noqa: S608
        f"total_reward = DEFAULT WHERE {broken}"
    )
    raise ValueError(
        f"{count:,} row{'s' * (count != 1)} of {table} can't be a posterior: {which}"
        f"{' and others' * (count > SHOWN)}. They were left as they are. Delete or mend them, for "
        f"instance back to the prior by {mend}; then upgrade again"
    )


def upgrade() -> None:
    _wait_briefly()
    op.execute("SET LOCAL statement_timeout = 0")
    table = f"{_prefix()}learning_arm_states"
    if not context.is_offline_mode():
        _check_rows(table)
    # One statement: one reading of the table.
    validated = ", ".join(f"VALIDATE CONSTRAINT {name}" for name in CONSTRAINTS)
    op.execute(f"ALTER TABLE {table} {validated}")


def downgrade() -> None:
    """Bring back what was: the same constraints, not valid."""
    _wait_briefly()
    table = f"{_prefix()}learning_arm_states"
    changed = ", ".join(
        f"DROP CONSTRAINT {name}, ADD CONSTRAINT {name} CHECK ({rule}) NOT VALID"
        for name, rule in CONSTRAINTS.items()
    )
    op.execute(f"ALTER TABLE {table} {changed}")
