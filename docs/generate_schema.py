"""Write docs/schema.md from the models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import CheckConstraint
from sqlalchemy.dialects import postgresql

from qortex_db.models import Base

HEAD = """# Schema

Written from the models by `docs/generate_schema.py`; the tests see that it is current. Alembic
makes these tables, in the schema that the connection resolves to or in `QORTEX_DB_SCHEMA`, and
keeps its revision in `qortex_db_alembic_version`.

The dimension of `vec` is chosen at the first upgrade (`QORTEX_VEC_DIMENSIONS`, 384 by default).
"""


_MODELS = {mapper.local_table.name: mapper.class_.__name__ for mapper in Base.registry.mappers}


def render() -> str:
    """The page."""
    tables = sorted(Base.metadata.tables.items())
    return HEAD + "".join(_table(name, table) for name, table in tables)


def _table(name: str, table: Any) -> str:
    dialect = postgresql.dialect()
    lines = [f"\n## `{name}`\n", "| column | type | null | default | |", "|---|---|---|---|---|"]
    for column in table.columns:
        kind = column.type.compile(dialect).lower()
        default = _default(column)
        null = "yes" if column.nullable else "no"
        lines.append(f"| `{column.name}` | `{kind}` | {null} | {default} | {column.comment} |")
    keys = ", ".join(f"`{column.name}`" for column in table.primary_key)
    lines.append(f"\nThe model `{_MODELS[name]}`. Primary key: {keys}.")
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        columns = ", ".join(f"`{column.name}`" for column in index.columns)
        options = index.dialect_options["postgresql"]
        method = f" by {options['using']}" if options["using"] else ""
        classes = ", ".join(dict(options["ops"] or {}).values())
        lines.append(
            f"\nIndex `{index.name}` on {columns}{method}"
            + (f" ({classes})" if classes else "")
            + "."
        )
    checks = [c for c in table.constraints if isinstance(c, CheckConstraint)]
    lines += sorted(f"\nCheck `{check.name}`: `{check.sqltext}`." for check in checks)
    return "\n".join(lines) + "\n"


def _default(column: Any) -> str:
    if column.identity is not None:
        return "identity"
    return f"`{column.server_default.arg.text}`" if column.server_default else ""


if __name__ == "__main__":
    (Path(__file__).parent / "schema.md").write_text(render())
