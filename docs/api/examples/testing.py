import os

dsn = os.environ["PGVECTOR_DSN"]

# qortex_db.testing.throwaway
# qortex_db.testing.Server
import asyncio

from qortex_db.testing import throwaway


def a_server_of_my_own():
    with throwaway(version=16) as server, server.database() as empty:
        return empty


assert "/16" in await asyncio.to_thread(a_server_of_my_own)

# qortex_db.testing.Server.create
# qortex_db.testing.Server.drop_all
from qortex_db.testing import Server

server = Server(dsn)  # one that runs already
name = server.create()
server.drop_all()  # what it made

# qortex_db.testing.Server.database
with server.database() as empty:
    assert empty != dsn

# qortex_db.testing.Server.dsn
assert "/other" in server.dsn("other")

# qortex_db.testing.Server.execute
server.execute("CREATE TABLE mine (id int)", "DROP TABLE mine")


# qortex_db.testing.Server.template
def migrate(dsn):  # once; a copy of it takes some milliseconds
    asyncio.run(migrations.upgrade(Settings(dsn=dsn)))


from qortex_db import Settings, migrations


def a_migrated_database():
    with server.database(server.template(migrate)) as dsn:
        return dsn


assert await asyncio.to_thread(a_migrated_database)
server.drop_all()

# qortex_db.testing.rolled_back
from qortex_db.testing import rolled_back

async with rolled_back(dsn) as uow:
    await uow.factors.save({"node": 2.0})
    await uow.session.commit()  # a savepoint's
assert await db.factors.load() == {}

# qortex_db.testing.create_all
from qortex_db.testing import create_all
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)


await create_all(dsn, Base.metadata)

# qortex_db.testing.asyncpg_url
from qortex_db.testing import asyncpg_url

assert asyncpg_url("postgresql://localhost/test").startswith("postgresql+asyncpg://")

# qortex_db.testing.factories.VectorRecordFactory
from qortex_db.testing.factories import VectorRecordFactory

records = VectorRecordFactory.build_batch(20, with_document=True)
assert await db.vectors.upsert(records) == 20

# qortex_db.testing.factories.VectorFactory
from qortex_db import Collection, VectorMixin, VectorSpec
from qortex_db.testing.factories import VectorFactory


class Page(VectorMixin, Base):
    __tablename__ = "pages"
    __collection__ = Collection(VectorSpec(64))


class PageFactory(VectorFactory[Page]):
    class Meta:
        model = Page

    class Params:
        dimensions = 64


assert len(PageFactory.build().embedding) == 64

# qortex_db.testing.factories.begin_anew
from qortex_db.testing import factories

factories.begin_anew()
first = VectorRecordFactory.build().id
factories.begin_anew()
assert VectorRecordFactory.build().id == first
