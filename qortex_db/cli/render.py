"""What people read: tables and lines for a terminal of 80 columns, or for a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box, markup
from rich.console import Group
from rich.table import Table

from qortex_db.errors import UPGRADE_HINT
from qortex_db.messages import command, visible

if TYPE_CHECKING:
    from rich.console import RenderableType

    from qortex_db.migrations import Drift, RebuiltIndex, SchemaState

_KIB = 1024


def escape(text: str) -> str:
    """Text as it is: no markup, and nothing that a terminal obeys."""
    return markup.escape(visible(text))


def table(*columns: str, title: str | None = None) -> Table:
    """The house's table; columns that begin with ">" are aligned to the right."""
    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    for column in columns:
        right = column.startswith(">")
        made.add_column(
            column.removeprefix(">"),
            justify="right" if right else "left",
            no_wrap=right,
            overflow="fold",  # a name that is cut may be another's
        )
    return made


def size(count: int) -> str:
    """Bytes for people."""
    amount, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):  # noqa: B007 - the last one tried counts
        if amount < _KIB:
            break
        amount /= _KIB
    return f"{amount:,.0f} {unit}" if amount >= 10 or unit == "B" else f"{amount:,.1f} {unit}"  # noqa: PLR2004


def schema_line(state: SchemaState) -> str:
    """Where a schema stands, in one line."""
    if state.current is None:
        return "The schema is empty."
    dimensions = f", {state.dimensions} dimensions" if state.dimensions else ""
    mark = "[green]current[/]" if state.is_current else f"head is {state.head}"
    return f"The schema is at revision [bold]{escape(state.current)}[/] ({mark}{dimensions})."


def schema(state: SchemaState) -> dict[str, Any]:
    """Where a schema stands, for a report."""
    return {"current": state.current, "head": state.head, "is_current": state.is_current}


def not_current(state: SchemaState, schema: str | None) -> str:
    """What is wrong with a schema, and what to do."""
    if state.is_filled:
        return (
            f"The tables are qortex's, and no revision made them: run {command(schema, 'adopt')}. "
            "(Where a host's Alembic did, name its version table by QORTEX_DB_VERSION_TABLE.)"
        )
    where = "not there" if state.current is None else f"at revision {state.current}"
    hint = UPGRADE_HINT if schema is None else f"run {command(schema, 'upgrade')}"
    return f"The schema is {where}, this version needs {state.head}: {hint}."


def drift(one: Drift) -> str:
    """A difference between a database and the models, in one line."""
    place = f"{one.table}, {one.object}:"
    return f"[bold]{escape(place)}[/]{escape(str(one).removeprefix(place))}"


def drifted(count: int) -> str:
    """How much differs, and what to do."""
    things = "1 thing" if count == 1 else f"{count} things"
    return (
        f"The database differs from the models in {things}. Undo what was changed by hand, or "
        "carry it into the models and a revision."
    )


def rebuilt(index: RebuiltIndex) -> str:
    """An index after its build, in one line."""
    return f"{escape(index.name)} is built: {size(index.bytes)}, in {index.seconds:.1f} s."


def _counts(part: dict[str, Any], *nouns: str) -> str:
    counts = [(part[f"{noun}s"], noun) for noun in nouns]
    return f"{part['backend']}: " + ", ".join(
        f"{count:,} {noun}{'' if count == 1 else 's'}" for count, noun in counts
    )


def missing(name: str, tables: list[str]) -> str:
    """What a host's models declare and the database lacks."""
    return (
        f"{', '.join(tables)} of {name} {'is' if len(tables) == 1 else 'are'} not there: run your "
        "own migrations."
    )


def status(report: dict[str, Any]) -> RenderableType:
    """A status as tables."""
    if report["schema"] is None:  # a host's tables alone
        facts = Table(box=None, show_header=False, padding=(0, 2))
        facts.add_row("[bold]schema[/]", "none of qortex-db's own")
        facts.add_row(
            "[bold]invalid indexes[/]", escape(", ".join(report["invalid_indexes"]) or "none")
        )
        return Group(facts, _tables(report))
    facts = Table(box=None, show_header=False, padding=(0, 2))
    stands, pool = report["schema"], report["pool"]
    mark = "current" if stands["is_current"] else f"needs {stands['head']}"
    place = " (embedded)" if report["embedded"] else ""
    rows = {
        "server": f"PostgreSQL {report['server_version']}{place}, pgvector "
        f"{report['pgvector_version']}",
        "schema": f"revision {stands['current']} ({mark}), {report['dimensions']} dimensions",
        "vector index": report["vector_index"],
        "interoception": _counts(report["interoception"], "factor", "edge"),
        "learning": _counts(report["learning"], "learner", "arm"),
        "pool": f"{pool['checked_out']} in use, {pool['idle']} idle, at most {pool['max']}"
        if pool["max"]
        else "none: each call connects",
        "invalid indexes": ", ".join(report["invalid_indexes"]) or "none",
        "schemas open to others": ", ".join(report["open_schemas"]) or "none",
        "pending indexes": ", ".join(report["pending_indexes"]) or "none",
    }
    for name, value in rows.items():
        facts.add_row(f"[bold]{name}[/]", escape(value))
    return Group(facts, _tables(report))


def _tables(report: dict[str, Any]) -> Table:
    tables = table("table", ">rows", ">size")
    for name, numbers in report["tables"].items():
        about = "about " if numbers["is_estimate"] else ""
        tables.add_row(escape(name), f"{about}{numbers['rows']:,}", size(numbers["bytes"]))
    return tables


__all__ = [
    "drift",
    "drifted",
    "escape",
    "missing",
    "not_current",
    "rebuilt",
    "schema",
    "schema_line",
    "size",
    "status",
    "table",
]
