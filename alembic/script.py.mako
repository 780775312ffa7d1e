"""${message}.

Before you write it (the schema lives on large, busy tables, and a landed revision is never edited):
- Import nothing from qortex_db: history must not change when the code does.
- Keep `SET LOCAL lock_timeout`: a statement that waits for a lock makes all others wait behind it.
- Add a column with a constant or no default only; anything else rewrites the table.
- Build indexes concurrently, one to a revision, in `with op.get_context().autocommit_block():`; drop
  what a failed attempt left INVALID first.
- Add a constraint NOT VALID, and validate it in the next revision.
- Qualify tables by `_prefix()`, so that `QORTEX_DB_SCHEMA` and a host's env.py work too.

Name it after the last one: alembic revision --rev-id qortex_db_0004 -m "..."; in a history shared with
a host, a bare number would meet the host's own.

Revision: ${up_revision}
Follows: ${down_revision | comma,n}
"""

import pgvector.sqlalchemy  # noqa: F401 - what autogenerate renders refers to it
import sqlalchemy as sa  # noqa: F401

from alembic import context, op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def _prefix() -> str:
    options = context.config.attributes.get("qortex_db", {})
    schema = options.get("schema") or context.get_x_argument(as_dictionary=True).get("schema")
    return f'"{schema}".' if schema else ""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '4s'")
    ${downgrades if downgrades else "pass"}
