import os

dsn = os.environ["PGVECTOR_DSN"]

# qortex_db.testing.throwaway
import asyncio

from qortex_db.testing import throwaway


def a_server_of_my_own():
    with throwaway(version=16) as server, server.database() as empty:
        return empty


assert "/16" in await asyncio.to_thread(a_server_of_my_own)

# qortex_db.testing.Server
from qortex_db.testing import Server

server = Server(dsn)  # one that runs already

# qortex_db.testing.Server.create
name = server.create()
assert name in server.dsn(name)

# qortex_db.testing.Server.drop_all
server.drop_all()  # what it made

# qortex_db.testing.Server.database
with server.database() as empty:
    assert empty != dsn

# qortex_db.testing.Server.dsn
assert "/other" in server.dsn("other")

# qortex_db.testing.Server.execute
server.execute("CREATE TABLE mine (id int)", "DROP TABLE mine")


# qortex_db.testing.Server.template
from qortex_db import Settings, migrations


def migrate(dsn):  # once; a copy of it takes some milliseconds
    asyncio.run(migrations.upgrade(Settings(dsn=dsn)))


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

# qortex_db.testing.factories.QortexVectorFactory
from qortex_db.testing.factories import QortexVectorFactory

async with db.unit_of_work() as uow:
    uow.session.add(QortexVectorFactory.build(id="row", with_payload=True))

# qortex_db.testing.factories.SearchHitFactory
from qortex_db import SearchHits
from qortex_db.testing.factories import SearchHitFactory

hits = SearchHits(SearchHitFactory.build_batch(2, score=0.7), requested=2, complete=True)

# qortex_db.testing.factories.InteroceptionFactorFactory
from qortex_db.testing.factories import InteroceptionFactorFactory

async with db.unit_of_work() as uow:
    uow.session.add(InteroceptionFactorFactory.build(node_id="n", old=True))
assert await db.factors.load() == {"n": 2.0}

# qortex_db.testing.factories.InteroceptionEdgeFactory
from qortex_db.testing.factories import InteroceptionEdgeFactory

async with db.unit_of_work() as uow:
    uow.session.add(InteroceptionEdgeFactory.build(ready=True))
assert len(await db.edges.promote()) == 1

# qortex_db.testing.factories.EdgeStatsFactory
from qortex_db.testing.factories import EdgeStatsFactory

await db.edges.save({("a", "b"): EdgeStatsFactory.build(hit_count=2)})

# qortex_db.testing.factories.PromotionFactory
from qortex_db.testing.factories import PromotionFactory

assert PromotionFactory.build(src_id="a").hit_count == 3

# qortex_db.testing.factories.LearningArmStateFactory
from qortex_db.testing.factories import LearningArmStateFactory

async with db.unit_of_work() as uow:
    uow.session.add(LearningArmStateFactory.build(learner_name="prompts", pulled=True))
assert (await db.arms.metrics("prompts")).total_pulls == 4

# qortex_db.testing.factories.LearningEventFactory
from qortex_db.testing.factories import LearningEventFactory

assert LearningEventFactory.build(learner_name="prompts").kind == "observe"

# qortex_db.testing.factories.LearningContextFactory
from qortex_db import context_hash
from qortex_db.testing.factories import LearningContextFactory

row = LearningContextFactory.build(context={"task": "sql"})
assert row.context_hash == context_hash({"task": "sql"})

# qortex_db.testing.factories.ArmFactory
from qortex_db.testing.factories import ArmFactory

chosen = await db.arms.select("prompts", ArmFactory.build_batch(3), k=2)
assert len(chosen.selected) == 2

# qortex_db.testing.factories.ArmStateFactory
from qortex_db.testing.factories import ArmStateFactory

await db.arms.put("prompts", "v1", ArmStateFactory.build(pulled=True))

# qortex_db.testing.factories.ArmOutcomeFactory
from qortex_db.testing.factories import ArmOutcomeFactory

assert ArmOutcomeFactory.build(arm_id="v1").reward == 1.0

# qortex_db.testing.factories.LearnerConfigFactory
from qortex_db import Learner
from qortex_db.testing.factories import LearnerConfigFactory

learner = Learner(LearnerConfigFactory.build(seed_arms=["v1"]), store=db)

# qortex_db.testing.factories.CachedEmbeddingFactory
from qortex_db.testing.factories import CachedEmbeddingFactory

async with db.unit_of_work() as uow:
    uow.session.add(CachedEmbeddingFactory.build(text="gzip", model="minilm"))
assert (await db.embeddings.stats()).rows == 1

# qortex_db.testing.factories.WordFrequencyFactory
from qortex_db.testing.factories import WordFrequencyFactory

assert WordFrequencyFactory.build(word="gzip").documents == 2

# qortex_db.testing.factories.IdempotencyKeyFactory
from qortex_db.testing.factories import IdempotencyKeyFactory

async with db.unit_of_work() as uow:
    uow.session.add(IdempotencyKeyFactory.build(key="request:1"))

# qortex_db.testing.factories.CheckpointFactory
from qortex_db.testing.factories import CheckpointFactory

assert CheckpointFactory.build(rows_read=10).position == {"after": 10}

# qortex_db.testing.factories.IndexedDocumentFactory
from qortex_db.testing.factories import IndexedDocumentFactory

assert IndexedDocumentFactory.build().namespace == "notes"

# qortex_db.testing.factories.EmbeddingChangeoverFactory
from qortex_db.testing.factories import EmbeddingChangeoverFactory

assert EmbeddingChangeoverFactory.build().new_name == "v2"

# qortex_db.testing.factories.begin_anew
from qortex_db.testing import factories

factories.begin_anew()
first = VectorRecordFactory.build().id
factories.begin_anew()
assert VectorRecordFactory.build().id == first
