"""The schema's revision, what the role may do, and who else may create where names are found."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from qortex_db.doctor.finding import Finding
from qortex_db.names import qualified

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

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
            yield Finding("schema", "wrong", said, f"Run {expected.command('adopt')}.")
        else:
            yield Finding("schema", "wrong", "The schema is not there.", _upgrade(expected))
    elif expected.head in revisions or (expected.is_shared and not missing):
        if missing:
            said = f"Tables are missing: {', '.join(missing)}."
            do = "What was dropped comes back from a backup, or by downgrade and upgrade, empty."
            yield Finding("schema", "wrong", said, do)
        else:
            yield Finding("schema", "good", f"At revision {expected.head}, as it should be.")
    elif expected.is_shared or not revisions:
        said = f"It is not at revision {expected.head}."
        yield Finding("schema", "wrong", said, _upgrade(expected))
    else:
        at = ", ".join(revisions)
        is_newer = max(revisions) > expected.head
        do = (
            "Install a newer qortex-db: one of those migrated it."
            if is_newer
            else _upgrade(expected)
        )
        said = f"The schema is at revision {at}, this version needs {expected.head}."
        yield Finding("schema", "wrong", said, do)


def _upgrade(expected: Expected) -> str:
    if expected.is_shared:
        return "Run `alembic upgrade heads` of the host, whose history has our revisions too."
    return f"Run {expected.command('upgrade')}."


def check_role(
    server: Server, tables: Mapping[str, TableAccess], expected: Expected
) -> Iterator[Finding]:
    """What the role may do with the tables."""
    role = f"The role {server.role}"
    if server.is_superuser:
        if expected.is_embedded:
            yield Finding("role", "good", f"{role} is the embedded server's own.")
        else:
            do = f"Have services connect as a role of {expected.command('roles', '--writer ROLE')}."
            yield Finding("role", "warning", f"{role} is a superuser: more than is needed.", do)
        return
    if not tables:
        yield Finding("role", "unknown", "There is no table that it may do something with.")
        return
    to = qualified(server.role)
    who = shlex.quote(server.role)
    roles = expected.command("roles", f"--writer {who}")
    rest = f"{roles} gives it all that is needed, or --reader."
    if closed := sorted({one.schema for one in tables.values() if not one.has_usage}):
        said = f"{role} lacks USAGE on the schema {', '.join(closed)}, which has the tables."
        do = f"As the owner: GRANT USAGE ON SCHEMA {_listed(closed)} TO {to}; {rest}"
        yield Finding("role", "wrong", said, do)
        return
    unread = {name: tables[name] for name in sorted(tables) if tables[name].refusal}
    unwritten = [one for one in tables.values() if not one.privileges >= _WRITES]
    if unread:
        names = ", ".join(qualified(one.schema, one.relation) for one in unread.values())
        said = f"{role} lacks SELECT on {', '.join(unread)}."
        do = f"As the owner: GRANT SELECT ON TABLE {names} TO {to}; {rest}"
        yield Finding("role", "wrong", said, do)
    elif all(one.is_owner for one in tables.values()):
        do = f"A service needs less: {expected.command('roles', '--writer ROLE')}."
        yield Finding("role", "good", f"{role} owns the tables, and may migrate.", do)
    elif unwritten and len(unwritten) < len(tables):
        names = ", ".join(sorted(one.name for one in unwritten))
        yield Finding("role", "good", f"{role} may read all, and write all but {names}.")
    else:
        yield Finding("role", "good", f"{role} may {'read' if unwritten else 'write and read'}.")
    if hidden := sorted(name for name, one in tables.items() if one.hides_rows):
        said = f"Policies decide which rows of {', '.join(hidden)} {server.role} sees."
        yield Finding("role", "good", said)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(qualified, names))


def check_path(
    server: Server, open_schemas: Sequence[str], closed_schemas: Sequence[str]
) -> Iterator[Finding]:
    """Who may create in the schemas on the search_path, and whether the role may use them."""
    for said in open_schemas:
        what, _, do = said.partition(": ")
        yield Finding("search_path", "warning", f"{what}.", f"{do[:1].upper()}{do[1:]}.")
    if closed_schemas:
        said = f"The role {server.role} lacks USAGE on {', '.join(closed_schemas)} of its "
        said += "search_path: what is there is not found."
        to = f"{_listed(closed_schemas)} TO {qualified(server.role)}"
        do = f"Take it off, or as its owner: GRANT USAGE ON SCHEMA {to}."
        yield Finding("search_path", "warning", said, do)
    if not (open_schemas or closed_schemas):
        yield Finding("search_path", "good", "Nobody else may create in its schemas.")
