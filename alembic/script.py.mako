"""${message}.

Before you write it (the schema lives on large, busy tables, and a landed revision is never edited):
- Import nothing from qortex_db: history must not change when the code does.
- Keep `_wait_briefly()`: a statement that waits for an exclusive lock makes all others wait behind
  it. Ours is then tried again, as a whole; so one table to a revision.
- Add a column with a constant or no default only; anything else rewrites the table.
- A statement may take half a second. What reads a whole table and blocks nobody (VALIDATE) begins
  with `SET LOCAL statement_timeout = 0`.
- Add a constraint NOT VALID, and validate it in the next revision. NOT NULL is a CHECK first.
- Fill a column in batches, each a transaction, in `autocommit_block()`; and so that it can be run
  again. Test it on rows.
- Build an index by `_build_index`, one to a revision, with nothing beside it.
- Qualify tables by `_prefix()`, so that `QORTEX_DB_SCHEMA` and a host's env.py work too.
- `downgrade` brings back what was, or raises and says why it can't.

Make it by `alembic revision -m "..."` in a checkout: its id is the next of our series, as a bare
number would meet a host's own in a shared history. Remove the functions that you don't call.

Revision: ${up_revision}
Follows: ${down_revision | comma,n}
"""

import pgvector.sqlalchemy  # noqa: F401 - what autogenerate renders refers to it
import sqlalchemy as sa

from alembic import context, op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def _option(name: str, default: str) -> str:
    options = context.config.attributes.get("qortex_db", {})
    return options.get(name) or context.get_x_argument(as_dictionary=True).get(name) or default


def _prefix() -> str:
    schema = _option("schema", "")
    return f'"{schema}".' if schema else ""


def _wait_briefly() -> None:
    op.execute(f"SET LOCAL lock_timeout = '{_option('lock_timeout', '500ms')}'")


def _build_index(name: str, on: str) -> None:
    """Build one while its table is in use; what a failed attempt left INVALID is dropped first."""
    with op.get_context().autocommit_block():
        op.execute("SET statement_timeout = 0")
        op.execute("SET lock_timeout = '10min'")  # for the transactions that are older
        if context.is_offline_mode() or _is_invalid(name):
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {_prefix()}{name}")
        op.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {on}")
        op.execute("RESET lock_timeout")
        op.execute("RESET statement_timeout")


def _is_invalid(index: str) -> bool:
    valid = sa.text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
    return op.get_bind().scalar(valid, {"name": _prefix() + index}) is False


def _drop_index(name: str) -> None:
    with op.get_context().autocommit_block():
        op.execute("SET statement_timeout = 0")
        op.execute("SET lock_timeout = '10min'")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {_prefix()}{name}")
        op.execute("RESET lock_timeout")
        op.execute("RESET statement_timeout")


def upgrade() -> None:
    _wait_briefly()
    ${upgrades if "op." in (upgrades or "") else "pass"}


def downgrade() -> None:
    _wait_briefly()
    ${downgrades if "op." in (downgrades or "") else "pass"}
