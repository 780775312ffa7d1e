"""Notes of many customers in one table, kept apart by row-level security.

export PGVECTOR_DSN=postgresql://owner:password@host/database
export SERVICE_DSN=postgresql://notes_app:password@host/database  # owns nothing
python examples/cookbook/tenants.py
"""

import asyncio
import os

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, make_url, text
from sqlalchemy.orm import DeclarativeBase
from words import DIMENSIONS, embed

import qortex_db.migrations  # noqa: F401 - op.enable_tenant_policies and op.grant_roles
from qortex_db import ALL_NAMESPACES, Collection, Database, VectorMixin, VectorSpec
from qortex_db.repositories import VectorRepository


class Base(DeclarativeBase):
    """The host's."""


class Note(VectorMixin, Base):
    __tablename__ = "notes"
    __collection__ = Collection(VectorSpec(DIMENSIONS), namespace="tenant")


def upgrade(connection: Connection) -> None:
    """What an application has in a revision."""
    Base.metadata.create_all(connection)
    op = Operations(MigrationContext.configure(connection))
    op.enable_tenant_policies("notes", "tenant", setting="app.tenant")
    service = make_url(os.environ["SERVICE_DSN"]).username
    op.grant_roles(writer=service, tables=["notes", "qortex_embedding_cache"])


class Notes:
    """What a request may reach; the tenant is who is logged in, not what is sent."""

    def __init__(self, db: Database, tenant: str) -> None:
        self._db = db.with_settings({"app.tenant": tenant})
        self._tenant = tenant

    @property
    def mine(self) -> VectorRepository[str]:
        """The tenant's own."""
        return self._db.collection(Note, namespace=self._tenant, embedder=embed)

    @property
    def all_of_them(self) -> VectorRepository[str]:
        """A mistake, which the server makes harmless."""
        return self._db.collection(Note, namespace=ALL_NAMESPACES, embedder=embed)


async def main() -> None:
    async with Database.connect() as owner, owner.engine.begin() as connection:
        await connection.run_sync(upgrade)
    async with Database.connect(os.environ["SERVICE_DSN"]) as db:
        acme, globex = Notes(db, "acme"), Notes(db, "globex")
        await acme.mine.upsert([{"id": "a1", "document": "The launch is on Friday."}])
        await globex.mine.upsert([{"id": "g1", "document": "The launch was put off."}])
        for name, notes in (("acme", acme), ("globex", globex)):
            hits = await notes.mine.search("When is the launch?")
            print(f"{name}: {[hit.document for hit in hits]}")
        print(f"globex asks for everybody's: {await globex.all_of_them.count()}")
        async with db.unit_of_work() as uow:  # no tenant is named
            nobody = await uow.session.execute(text("SELECT count(*) FROM notes"))
            print(f"without a tenant: {nobody.scalar()}")


if __name__ == "__main__":
    asyncio.run(main())
