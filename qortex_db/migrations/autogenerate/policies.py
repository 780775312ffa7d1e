"""Operations for revisions: grants for roles, and row-level security for tenants.

Importing `qortex_db.migrations` registers them as `op.grant_roles` and so on.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from alembic.operations import MigrateOperation, Operations

from qortex_db.engine import NO_OPTIONS
from qortex_db.errors import InvalidInputError
from qortex_db.migrations.roles import DEFAULT_SCHEMA, grants
from qortex_db.models import Base
from qortex_db.names import qualified

if TYPE_CHECKING:
    from collections.abc import Sequence

POLICY: Final = "qortex_db_tenant"
"""The name of a table's policy."""
_TYPE: Final = re.compile(r"[a-z][a-z ]{0,40}(\([0-9]+\))?")


@Operations.register_operation("grant_roles")
class GrantRolesOp(MigrateOperation):
    """Give roles what they need of tables."""

    def __init__(self, statements: list[str]) -> None:
        self.statements = statements

    @classmethod
    def grant_roles(
        cls,
        operations: Operations,
        *,
        owner: str | None = None,
        writer: str | None = None,
        reader: str | None = None,
        tables: Sequence[str] | None = None,
        schema: str | None = None,
        extension_schema: str | None = None,
    ) -> None:
        """Give roles that are there what they need of tables, and nothing besides.

        Args:
            operations: Alembic's.
            owner: Gets the tables.
            writer: May read, insert, update and delete.
            reader: May read.
            tables: A host's own collections; by default the package's tables.
            schema: Of the tables, public by default.
            extension_schema: Of pgvector, if another.
        """
        schemas = [schema or DEFAULT_SCHEMA, *([extension_schema] if extension_schema else [])]
        named = Base.metadata.tables if tables is None else tables
        statements = grants(named, schemas=schemas, owner=owner, writer=writer, reader=reader)
        operations.invoke(cls(statements))


@Operations.register_operation("enable_tenant_policies")
class EnableTenantPoliciesOp(MigrateOperation):
    """Let a table's rows be seen and changed by their tenant alone."""

    def __init__(self, statements: list[str]) -> None:
        self.statements = statements

    @classmethod
    def enable_tenant_policies(
        cls,
        operations: Operations,
        table_name: str,
        column: str,
        *,
        setting: str = "app.tenant",
        type_: str = "text",
        schema: str | None = None,
        force: bool = True,
    ) -> None:
        """Let a table's rows be seen, written and deleted by the tenant of `setting` alone.

        Where that is not set, or empty, there are no rows, and none can be written. `setting` is
        given by `Database.with_settings`.

        Args:
            operations: Alembic's.
            table_name: Its name, without a schema.
            column: The one with the tenant, such as a collection's namespace.
            setting: The name of what says who it is.
            type_: The column's, as SQL: text for a varchar, too.
            schema: Of the table.
            force: Hold the table's owner to it, too; a superuser and a role with BYPASSRLS are not.
        """
        NO_OPTIONS.with_settings({setting: ""})  # is it a name?
        if not isinstance(type_, str) or not _TYPE.fullmatch(type_):
            raise InvalidInputError("type_ is no type of SQL: pass one as 'text' or 'uuid'.")
        table = qualified(schema, table_name)
        said = f"nullif(pg_catalog.current_setting('{setting}'::text, true), ''::text)"
        own = f"{qualified(column)} = CAST({said} AS {type_})"
        statements = [
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
            *([f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY"] if force else []),
            f"CREATE POLICY {POLICY} ON {table} USING ({own}) WITH CHECK ({own})",
        ]
        operations.invoke(cls(statements))


@Operations.register_operation("disable_tenant_policies")
class DisableTenantPoliciesOp(MigrateOperation):
    """Let a table's rows be everybody's again."""

    def __init__(self, statements: list[str]) -> None:
        self.statements = statements

    @classmethod
    def disable_tenant_policies(
        cls, operations: Operations, table_name: str, *, schema: str | None = None
    ) -> None:
        """Take back what `enable_tenant_policies` did.

        Args:
            operations: Alembic's.
            table_name: Its name, without a schema.
            schema: Of the table.
        """
        table = qualified(schema, table_name)
        statements = [
            f"DROP POLICY {POLICY} ON {table}",
            f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
        ]
        operations.invoke(cls(statements))


@Operations.implementation_for(GrantRolesOp)
@Operations.implementation_for(EnableTenantPoliciesOp)
@Operations.implementation_for(DisableTenantPoliciesOp)
def _run(operations: Operations, operation: Any) -> None:
    for statement in operation.statements:
        operations.execute(statement.replace(":", r"\:"))  # a name's is no parameter
