"""What an adoption tells: what was found, what was done, or why nothing was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qortex_db.errors import SchemaVersionError
from qortex_db.messages import escaped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qortex_db.migrations.commands import SchemaState
    from qortex_db.migrations.rebuild.building import RebuiltIndex


class AdoptionRefusedError(SchemaVersionError):
    """What is there is not what qortex makes; nothing was changed.

    Attributes:
        differences: All of them, a line each.
    """

    def __init__(self, differences: Sequence[str]) -> None:
        super().__init__("These tables are not what qortex 0.8 makes, and nothing was changed:")
        lines = "".join(f"\n- {escaped(line)}" for line in differences)
        self.args = (f"{self}{lines}",)
        self.differences = tuple(differences)


@dataclass(frozen=True, slots=True)
class AdoptedTable:
    """A table, before and after.

    Attributes:
        form: What was found: "embedding" or "vec" for the vectors' two forms, "table" for another,
            "missing".
        bytes: Without its indexes: what a scan reads.
        checksum: Of all its rows, in any order; "" where it was missing.
        checksum_after: The same, None where nothing was done.
    """

    name: str
    form: str
    rows: int
    bytes: int
    checksum: str
    checksum_after: str | None = None


@dataclass(frozen=True, slots=True)
class Adoption:
    """What was found, and what was done or, in a dry run, would be.

    Attributes:
        schema: Where the tables are.
        tables: None of them where the database was under Alembic already.
        steps: In their order, most of them as SQL.
        kept: What a host added, and keeps.
        warnings: What is replaced, and rows that our methods don't take.
        renames: Whether a column is renamed, which breaks a running qortex.
        state: Where the schema stands now.
        pending_index: The vector index that is not valid yet; adopting again builds it.
        built: The vector index, where it was built just now.
        failure: Why it was not built.
    """

    schema: str
    dry_run: bool
    state: SchemaState
    tables: tuple[AdoptedTable, ...] = ()
    steps: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    renames: bool = False
    pending_index: str | None = None
    built: RebuiltIndex | None = None
    failure: str | None = None
