"""The ids of our revisions: a series, so that a host's own can't meet them in a shared history."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from alembic.operations.ops import MigrationScript
    from alembic.script import ScriptDirectory

BRANCH: Final = "qortex_db"
"""The label of our branch."""
_ID: Final = re.compile(rf"{BRANCH}_(\d{{4}})")


def number_new_revisions(scripts: ScriptDirectory, directives: Iterable[MigrationScript]) -> None:
    """Number the revisions that are about to be written on our branch; leave others alone."""
    for directive in directives:
        if _is_ours(scripts, directive.head or "head"):
            number = _last_number(scripts) + 1
            directive.rev_id = f"{BRANCH}_{number:04}"
            scripts.file_template = f"{number:04}_%(slug)s"


def _is_ours(scripts: ScriptDirectory, head: Any) -> bool:
    """Whether what follows this head is of our branch; a new base is another one's."""
    followed = scripts.get_revisions(head)
    return any(script is not None and BRANCH in script.branch_labels for script in followed)


def _last_number(scripts: ScriptDirectory) -> int:
    ids = (_ID.fullmatch(script.revision) for script in scripts.walk_revisions())
    return max((int(found[1]) for found in ids if found), default=0)
