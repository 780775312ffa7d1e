"""A host's revisions about collections: what makes a table, by its model alone, or changes one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from alembic.autogenerate import render_python_code
from alembic.config import Config
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError, rev_id

from qortex_db.errors import InvalidInputError
from qortex_db.migrations.autogenerate.compare import creation, is_ours, leave_out_info
from qortex_db.migrations.autogenerate.partitions import CreatePartitionsOp, declared_partitions

if TYPE_CHECKING:
    from sqlalchemy import Index, Table

OUR_BRANCH: Final = "qortex_db"
FIRST: Final = "qortex_db_0001"
"""Our revision that makes the extension, which is all that a collection needs."""
_IMPORTS: Final = {
    "qortex_db.types.": "import qortex_db.types",
    "pgvector.sqlalchemy.": "import pgvector.sqlalchemy",
    "postgresql.": "from sqlalchemy.dialects import postgresql",
    "_index(": "import qortex_db.migrations  # noqa: F401 - registers op.create_vector_index",
    "_embedding_column(": "import qortex_db.migrations  # noqa: F401 - registers the operation",
}


def write_revision(ini: Path, table: Table, *, head: str | None = None) -> Path:
    """Write the revision that makes a table with its indexes into a host's folder of revisions.

    It follows the head of the host's own branch, and depends on ours where that is known there.

    Args:
        ini: The host's alembic.ini.
        head: Which to follow; by default the one head that is not ours.

    Raises:
        InvalidInputError: There is no such file or head, or there are several heads.
    """
    upgrade, downgrade = _code(table)
    return write_code(ini, f"create {table.name}", upgrade, downgrade, head=head, needs=FIRST)


def write_code(
    ini: Path, message: str, upgrade: str, downgrade: str, *, head: str | None, needs: str
) -> Path:
    """Write a revision of this code, as `write_revision` does.

    Args:
        needs: The revision of ours that it depends on.
    """
    if not ini.is_file():
        raise InvalidInputError(f"There is no {ini}: say where your alembic.ini is.")
    scripts = ScriptDirectory.from_config(Config(str(ini)))
    follows = head or _own_head(scripts)
    said = f"{upgrade}\n{downgrade}"
    try:
        written = scripts.generate_revision(
            rev_id(),
            message,
            head=follows,
            version_path=_own_folder(scripts) if follows == "base" else None,
            depends_on=needs if _knows_us(scripts) else None,
            upgrades=upgrade,
            downgrades=downgrade,
            imports="\n".join(line for part, line in _IMPORTS.items() if part in said),
        )
    except CommandError as error:
        raise InvalidInputError(f"Alembic wrote no revision: {error}") from error
    if written is None:
        raise InvalidInputError("Alembic wrote no revision.")
    return Path(written.path)


def _own_head(scripts: ScriptDirectory) -> str:
    heads = [head for head in scripts.get_heads() if OUR_BRANCH not in _labels(scripts, head)]
    if len(heads) > 1:
        raise InvalidInputError(
            f"There are several heads, {', '.join(heads)}: say which one to follow by --head."
        )
    return heads[0] if heads else "base"


def _labels(scripts: ScriptDirectory, head: str) -> set[str]:
    script = scripts.get_revision(head)
    return set() if script is None else set(script.branch_labels)


def _knows_us(scripts: ScriptDirectory) -> bool:
    return any(OUR_BRANCH in _labels(scripts, head) for head in scripts.get_heads())


def _own_folder(scripts: ScriptDirectory) -> str | None:
    """Where a host's first revision goes; Alembic asks where there are several folders."""
    ours = {Path(script.path).parent for script in scripts.walk_revisions()}
    folders = [
        folder for folder in map(Path, scripts.version_locations or ()) if folder not in ours
    ]
    return str(folders[0]) if folders else None


def _code(table: Table) -> tuple[str, str]:
    created = ops.CreateTableOp.from_table(table)
    leave_out_info(created)
    made = [created, *_partitions(table)]
    made += [_created(index, table) for index in sorted(table.indexes, key=lambda i: str(i.name))]
    upgrade = ops.UpgradeOps(made)
    downgrade = ops.DowngradeOps([ops.DropTableOp.from_table(table)])
    context = MigrationContext.configure(dialect_name="postgresql")
    up, down = (
        render_python_code(each, migration_context=context) for each in (upgrade, downgrade)
    )
    return up, down


def _partitions(table: Table) -> list[ops.MigrateOperation]:
    said = declared_partitions(table.info)
    return [] if said is None else [CreatePartitionsOp(table.name, said, schema=table.schema)]


def _created(index: Index, table: Table) -> ops.MigrateOperation:
    """An index, built in the transaction that makes its table: there is nothing in it yet."""
    if not is_ours(index):
        return ops.CreateIndexOp.from_index(index)
    return creation(index, table.name, table.schema, concurrently=False)
