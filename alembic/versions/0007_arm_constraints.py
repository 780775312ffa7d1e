"""Posteriors stay positive: constraints that new and changed rows of arms have to meet.

NOT VALID, so that no row is read; the next revision validates them.
"""

from alembic import context, op

revision = "qortex_db_0007"
down_revision = "qortex_db_0006"
branch_labels = None
depends_on = None

CONSTRAINTS = {
    # To PostgreSQL, NaN is larger than infinity: neither of them passes.
    "ck_learning_arm_states_alpha_positive": "alpha > 0 AND alpha < 'infinity'",
    "ck_learning_arm_states_beta_positive": "beta > 0 AND beta < 'infinity'",
    "ck_learning_arm_states_pulls_counted": "pulls >= 0",
}


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
    added = ", ".join(
        f"ADD CONSTRAINT {name} CHECK ({rule}) NOT VALID" for name, rule in CONSTRAINTS.items()
    )
    op.execute(f"ALTER TABLE {_prefix()}learning_arm_states {added}")


def downgrade() -> None:
    _wait_briefly()
    dropped = ", ".join(f"DROP CONSTRAINT {name}" for name in CONSTRAINTS)
    op.execute(f"ALTER TABLE {_prefix()}learning_arm_states {dropped}")
