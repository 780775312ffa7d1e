import numpy as np
from sqlalchemy import ForeignKey, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


# qortex_db.VectorMixin
from qortex_db import Collection, VectorMixin, VectorSpec


class Page(VectorMixin, Base):  # its columns: id, vec, payload, document, created_at, updated_at
    __tablename__ = "pages"
    __collection__ = Collection(VectorSpec(3))

    author: Mapped[str | None]


# qortex_db.Collection
from qortex_db import HNSW


class Mail(VectorMixin, Base):
    __tablename__ = "mails"
    __collection__ = Collection(
        VectorSpec(3, index=HNSW(m=24)), language="english", namespace="tenant"
    )

    tenant: Mapped[str]


# qortex_db.VectorSpec
half = VectorSpec(3, metric="l2", storage="half", quantization=None)

# qortex_db.Partitions
from qortex_db import Partitions

parts = Collection(VectorSpec(3), partitions=Partitions(4))  # by the hash of the key

# qortex_db.vector_column
from qortex_db import vector_column


class Photo(VectorMixin, Base):
    __tablename__ = "photos"
    __collection__ = Collection(VectorSpec(3))

    caption: Mapped[np.ndarray | None] = vector_column(VectorSpec(8))


# qortex_db.HNSW
graph = VectorSpec(3, index=HNSW(m=32, ef_construction=128))

# qortex_db.IVFFlat
from qortex_db import IVFFlat

lists = VectorSpec(3, index=IVFFlat(lists=200))

# qortex_db.vector_index
from qortex_db import vector_index

sparse = vector_index(Page.__table__, index=HNSW(where="author IS NOT NULL"), name="ix_authored")

# qortex_db.payload_index
from qortex_db import payload_index

years = payload_index(Page.__table__, "year", "integer")

async with db.engine.begin() as connection:
    await connection.run_sync(Base.metadata.create_all)  # a test's way; Alembic does it else
pages = db.collection(Page)
await pages.upsert([{"id": "a", "embedding": [1, 2, 3], "attributes": {"author": "Lem"}}])
assert (await pages.search([1, 2, 3], where=Page.author == "Lem"))[0].id == "a"

# qortex_db.Embedding
from qortex_db import Embedding


class Song(Base):  # a model without the mixin
    __tablename__ = "songs"

    id: Mapped[int] = mapped_column(primary_key=True)
    mood: Mapped[np.ndarray] = mapped_column(Embedding(3))


near = select(Song).order_by(Song.mood.cosine_distance([1, 2, 3])).limit(5)

# qortex_db.HalfEmbedding
from qortex_db import HalfEmbedding


class Sound(Base):
    __tablename__ = "sounds"

    id: Mapped[int] = mapped_column(primary_key=True)
    timbre: Mapped[np.ndarray] = mapped_column(HalfEmbedding(3))


# qortex_db.SparseEmbedding
from qortex_db import SparseEmbedding
from pgvector import SparseVector


class Term(Base):
    __tablename__ = "terms"

    id: Mapped[int] = mapped_column(primary_key=True)
    words: Mapped[SparseVector] = mapped_column(SparseEmbedding(30_000))


# qortex_db.fold_sparse
from qortex_db import fold_sparse

folded = fold_sparse({2**31: 0.5, 7: 1.0}, 30_000)  # positions that are hashes
assert folded.dimensions() == 30_000

# qortex_db.QortexVector
from qortex_db import QortexVector

async with db.unit_of_work() as uow:
    uow.session.add(QortexVector(id="mine", embedding=[0.5] * 384, document="An object."))


class Bookmark(Base):
    __tablename__ = "bookmarks"

    vector_id: Mapped[str] = mapped_column(ForeignKey(QortexVector.id), primary_key=True)


# qortex_db.InteroceptionFactor
from qortex_db import InteroceptionFactor

async with db.unit_of_work() as uow:
    heavy = select(InteroceptionFactor.node_id).where(InteroceptionFactor.weight > 1)
    assert (await uow.session.scalars(heavy)).all() == []

# qortex_db.InteroceptionEdge
from qortex_db import InteroceptionEdge

seen = select(InteroceptionEdge).where(InteroceptionEdge.hit_count >= 3)

# qortex_db.LearningArmState
from qortex_db import LearningArmState

pulled = select(LearningArmState.arm_id).where(LearningArmState.pulls > 0)

# qortex_db.LearningEvent
from qortex_db import LearningEvent

newest = select(LearningEvent).order_by(LearningEvent.id.desc()).limit(10)

# qortex_db.LearningContext
from qortex_db import LearningContext

contexts = select(LearningContext.context_hash, LearningContext.context)

# qortex_db.CachedEmbedding
from qortex_db import CachedEmbedding

cached = select(CachedEmbedding).limit(10)

# qortex_db.WordFrequency
from qortex_db import WordFrequency

frequent = select(WordFrequency).limit(10)

# qortex_db.IdempotencyKey
from qortex_db import IdempotencyKey

kept = select(IdempotencyKey).limit(10)

# qortex_db.Checkpoint
from qortex_db import Checkpoint

under_way = select(Checkpoint).limit(10)

# qortex_db.IndexedDocument
from qortex_db import IndexedDocument

indexed = select(IndexedDocument).limit(10)

# qortex_db.EmbeddingChangeover
from qortex_db import EmbeddingChangeover

changing = select(EmbeddingChangeover)
async with db.unit_of_work() as uow:
    for query in (seen, pulled, newest, contexts, cached, frequent, kept, under_way, indexed):
        assert (await uow.session.execute(query)).all() == []
    assert (await uow.session.execute(changing)).all() == []
