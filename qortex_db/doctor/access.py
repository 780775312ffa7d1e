"""The schema's revision, what the role may do, and who else may create where names are found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qortex_db.doctor.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from qortex_db.doctor.facts import Expected, Server, TableAccess

_WRITES: Final = frozenset({"INSERT", "UPDATE", "DELETE"})


def check_revision(
    revisions: Sequence[str] | None, tables: Mapping[str, TableAccess], expected: Expected
) -> Iterator[Finding]:
    """The schema's revision against what this version needs, and a host's tables."""
    missing = [name for name in expected.tables if name not in tables]
    lacking = sorted(name for name in expected.others if name not in tables)
    if lacking:
        said = f"Tables of yours are not there: {', '.join(lacking)}."
        yield Finding("schema", "wrong", said, "Run your own migrations.")
    if revisions is None:
        if expected.others and len(missing) == len(expected.tables):
            yield Finding("schema", "good", "It has tables of yours alone, none of qortex-db's.")
        elif len(missing) < len(expected.tables):
            said = "There are tables of qortex's that no revision made."
            yield Finding("schema", "wrong", said, "Run `qortex-db adopt`.")
        else:
            yield Finding("schema", "wrong", "The schema is not there.", _UPGRADE)
    elif expected.head in revisions or (expected.is_shared and not missing):
        if missing:
            said = f"Tables are missing: {', '.join(missing)}."
            do = "What was dropped comes back from a backup, or by downgrade and upgrade, empty."
            yield Finding("schema", "wrong", said, do)
        else:
            yield Finding("schema", "good", f"At revision {expected.head}, as it should be.")
    elif expected.is_shared or not revisions:
        yield Finding("schema", "wrong", f"It is not at revision {expected.head}.", _UPGRADE)
    else:
        at = ", ".join(revisions)
        is_newer = max(revisions) > expected.head
        do = "Install a newer qortex-db: one of those migrated it." if is_newer else _UPGRADE
        said = f"The schema is at revision {at}, this version needs {expected.head}."
        yield Finding("schema", "wrong", said, do)


_UPGRADE: Final = "Run `qortex-db upgrade`."


def check_role(
    server: Server, tables: Mapping[str, TableAccess], expected: Expected
) -> Iterator[Finding]:
    """What the role may do with the tables."""
    role = f"The role {server.role}"
    if server.is_superuser:
        if expected.is_embedded:
            yield Finding("role", "good", f"{role} is the embedded server's own.")
        else:
            do = "Have services connect as a role of `qortex-db roles --writer`."
            yield Finding("role", "warning", f"{role} is a superuser: more than is needed.", do)
        return
    if not tables:
        yield Finding("role", "unknown", "There is no table that it may do something with.")
        return
    if closed := sorted({one.schema for one in tables.values() if not one.has_usage}):
        said = f"{role} may not use the schema {', '.join(closed)}."
        yield Finding("role", "wrong", said, _GRANT)
        return
    unread = sorted(name for name, one in tables.items() if "SELECT" not in one.privileges)
    unwritten = [one for one in tables.values() if not one.privileges >= _WRITES]
    if unread:
        yield Finding("role", "wrong", f"{role} may not read {', '.join(unread)}.", _GRANT)
    elif all(one.is_owner for one in tables.values()):
        do = "A service needs less: `qortex-db roles --writer`."
        yield Finding("role", "good", f"{role} owns the tables, and may migrate.", do)
    elif unwritten and len(unwritten) < len(tables):
        names = ", ".join(sorted(one.name for one in unwritten))
        yield Finding("role", "good", f"{role} may read all, and write all but {names}.")
    else:
        yield Finding("role", "good", f"{role} may {'read' if unwritten else 'write and read'}.")
    if hidden := sorted(name for name, one in tables.items() if one.hides_rows):
        said = f"Policies decide which rows of {', '.join(hidden)} {server.role} sees."
        yield Finding("role", "good", said)


_GRANT: Final = "As the owner: `qortex-db roles --writer ROLE`, or `--reader ROLE`."


def check_path(open_schemas: Sequence[str]) -> Iterator[Finding]:
    """Who may create in the schemas on the search_path."""
    for said in open_schemas:
        what, _, do = said.partition(": ")
        yield Finding("search_path", "warning", f"{what}.", f"{do[:1].upper()}{do[1:]}.")
    if not open_schemas:
        yield Finding("search_path", "good", "Nobody else may create in its schemas.")
