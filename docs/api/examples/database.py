from qortex_db import Database, Settings

# qortex_db.Database
async with Database.connect() as db:  # by the environment
    await db.factors.save({"node": 1.5})
    async with db.unit_of_work() as uow:
        await uow.factors.adjust({"node": "accepted"})

# qortex_db.Database.connect
service = Database.connect(Settings(pool_max_size=5))  # no I/O yet

# qortex_db.Database.open
db = await service.open()

# qortex_db.Database.from_engine
hosted = Database.from_engine(db.engine)  # closing it leaves the engine open
async with hosted:
    assert await hosted.factors.get(["node"])

# qortex_db.Database.collection
from qortex_db import QortexVector

assert await db.collection(QortexVector).count() == 0

# qortex_db.Database.unit_of_work
async with db.unit_of_work(isolation_level="REPEATABLE READ") as uow:
    await uow.factors.save({"other": 2.0})


# qortex_db.Database.run
async def work(uow):  # run again where it met another transaction
    return await uow.factors.adjust({"node": "rejected"})


weights = await db.run(work, idempotency_key="feedback:17")
assert await db.run(work, idempotency_key="feedback:17") is None  # it counted already

# qortex_db.Database.status
# qortex_db.status.Status
status = await db.status()
assert status.tables["interoception_factors"]["rows"] == 2

# qortex_db.Database.options
patient = db.options(timeout_seconds=30, lock_timeout_seconds=5)
assert await patient.vectors.count() == 0

# qortex_db.Database.with_settings
tenant = db.with_settings({"app.tenant": "acme"})  # which a policy of row-level security reads
assert await tenant.factors.get(["node"])

# qortex_db.DatabaseView
quick, patient = (db.options(timeout_seconds=seconds) for seconds in (1, 30))  # over one pool
assert await quick.factors.load() == await patient.factors.load()

# qortex_db.DatabaseView.with_settings
ours = tenant.with_settings({"app.user": "ada"})  # the tenant holds too
assert await ours.factors.get(["node"])

# qortex_db.Database.namespace
from qortex_db import migrations

await migrations.upgrade(Settings(db_schema="acme"))  # a schema with tables of its own
mine = db.namespace("acme")
await mine.factors.save({"node": 3.0})
assert (await db.factors.get(["node"]))["node"] != 3.0

# qortex_db.DatabaseView.namespace
theirs = tenant.namespace("acme")
assert (await theirs.factors.get(["node"]))["node"] == 3.0

# qortex_db.DatabaseView.token
noting = db.options(consistency="session")
await noting.factors.save({"node": 1.7})
token = noting.token()  # for whoever reads next, where there are replicas

# qortex_db.Database.token
async with Database.connect(consistency="session") as writing:
    await writing.factors.save({"node": 1.7})
    token = writing.token()

# qortex_db.DatabaseView.reading_after
assert (await tenant.reading_after(token).factors.get(["node"]))["node"] == 1.7

# qortex_db.Database.reading_after
assert (await db.reading_after(token).factors.get(["node"]))["node"] == 1.7

# qortex_db.DatabaseView.collection
assert await tenant.collection(QortexVector).count() == 0

# qortex_db.DatabaseView.unit_of_work
async with tenant.unit_of_work() as uow:
    await uow.factors.adjust({"node": "accepted"})

# qortex_db.DatabaseView.run
await tenant.run(work)

# qortex_db.DatabaseView.options
assert await tenant.options(timeout_seconds=5).vectors.count() == 0

# qortex_db.UnitOfWork
from qortex_db import UnitOfWork
from sqlalchemy.ext.asyncio import AsyncSession

async with AsyncSession(db.engine) as session:
    uow = UnitOfWork(session)  # it neither begins nor commits nor closes
    await uow.factors.save({"mine": 1.1})
    await session.commit()

# qortex_db.UnitOfWork.collection
async with db.unit_of_work() as uow:
    await uow.collection(QortexVector).upsert([{"id": "a", "embedding": [1.0] * 384}])

# qortex_db.UnitOfWork.options
async with db.unit_of_work() as uow, uow.options(timeout_seconds=2):
    await uow.vectors.count()

# qortex_db.unit_of_work
from qortex_db import unit_of_work

async with AsyncSession(db.engine) as session:
    async with unit_of_work(session) as uow:  # a savepoint
        await uow.factors.save({"mine": 1.2})
    await session.commit()

# qortex_db.sync.Database
import asyncio

from qortex_db import sync


def script():
    with sync.Database.connect() as db:
        return db.factors.get(["node"])


assert await asyncio.to_thread(script)


# qortex_db.sync.Database.connect
def prepared():
    return sync.Database.connect(Settings(statement_timeout_seconds=5))  # no I/O yet


waiting = await asyncio.to_thread(prepared)

# qortex_db.sync.Database.open
await asyncio.to_thread(waiting.open)  # in a cell of a notebook: db.open()

# qortex_db.sync.Database.close
await asyncio.to_thread(waiting.close)

# qortex_db.Settings
settings = Settings(statement_timeout_seconds=30)  # the rest by the environment
assert settings.statement_timeout_seconds == 30

# qortex_db.Settings.is_given
assert Settings(dsn="postgresql://localhost/memory").is_given

# qortex_db.Settings.target
print(settings.target().url)  # None where no server is named

# qortex_db.Settings.limits
assert Settings(complete="auto").limits.complete == "auto"

# qortex_db.Settings.replicas
assert list(settings.replicas()) == []

# qortex_db.Settings.with_replicas
import os

reading = settings.with_replicas([os.environ["PGVECTOR_DSN"]])
assert len(reading.replicas()) == 1

# qortex_db.Settings.fernet_keys
assert settings.fernet_keys is None  # QORTEX_DB_ENCRYPTION_KEYS

# qortex_db.Limits
from qortex_db import LimitExceededError, Limits

small = Database.from_engine(db.engine, limits=Limits(max_payload_bytes=10))
try:
    await small.vectors.upsert(
        [{"id": "b", "embedding": [1.0] * 384, "payload": {"text": "too long"}}]
    )
except LimitExceededError as error:
    assert (error.limit, error.allowed) == ("max_payload_bytes", 10)

# qortex_db.FairPool
from qortex_db import FairPool
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(db.engine.url, poolclass=FairPool, pool_size=5)
await engine.dispose()

# qortex_db.EncryptionKeys
from cryptography.fernet import Fernet

keys = [Fernet.generate_key()]  # the newest first; or a function that gives them
sealed = Database.connect(encryption_keys=keys)

# qortex_db.repositories.IdempotencyRepository
async with db.unit_of_work() as uow:
    if await uow.idempotency.claim("message:1"):
        await uow.factors.adjust({"node": "accepted"})

# qortex_db.repositories.IdempotencyRepository.claim
async with db.unit_of_work() as uow:
    assert not await uow.idempotency.claim("message:1")  # it was done

# qortex_db.repositories.IdempotencyRepository.prune
from datetime import timedelta

assert await db.idempotency.prune(older_than=timedelta(days=30)) == 0

# qortex_db.Database.close
await db.close()
