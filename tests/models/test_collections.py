"""Collections declared as models, on a host's own Base, and the limits said when they are."""

from __future__ import annotations

import gc
import itertools
import re
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import asyncpg
import numpy as np
import pytest
from numpy.typing import NDArray  # noqa: TC002 - SQLAlchemy resolves Mapped[...]
from sqlalchemy import (
    Column,
    ForeignKey,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    insert,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import (
    HNSW,
    Collection,
    Database,
    DimensionMismatchError,
    Embedding,
    InvalidInputError,
    IVFFlat,
    QortexVector,
    VectorMixin,
    VectorSpec,
    vector_column,
    vector_index,
)
from qortex_db.models import NAMING_CONVENTION, Base, collection_of
from qortex_db.models.vector_spec import Metric, Quantization, Storage
from qortex_db.repositories import VectorRepository
from qortex_db.repositories.statement_cache import MAX_BYTES, MAX_TABLES, STATEMENTS
from qortex_db.types import SparseVector
from support.catalogue import execute, rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine

EXTENSION = "CREATE EXTENSION vector"


class HostBase(DeclarativeBase):
    pass


class Author(HostBase):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)


class Note(VectorMixin, HostBase):
    __tablename__ = "notes"
    __collection__ = Collection(VectorSpec(3, metric="l2"), language="english")

    author_id: Mapped[int | None] = mapped_column(ForeignKey(Author.id))
    stars: Mapped[int]
    title: Mapped[NDArray[np.float32] | None] = vector_column(VectorSpec(2, storage="half"))
    words: Mapped[SparseVector | None] = vector_column(
        VectorSpec(1_000, "inner_product", storage="sparse"), name="words_vec"
    )


def declared(collection: Collection, name: str = "c", **columns: Any) -> Table:
    """A model of that collection on a Base of its own, as its table."""
    base = type("B", (DeclarativeBase,), {"metadata": MetaData()})
    space = {"__tablename__": name, "__collection__": collection, **columns}
    model: Any = type("Model", (VectorMixin, base), space)
    return model.__table__


def url(dsn: str) -> str:
    return dsn.replace("postgresql://", "postgresql+asyncpg://")


@pytest.fixture
async def engine(empty_dsn: str) -> AsyncIterator[AsyncEngine]:
    """A host's engine, adopted."""
    await execute(empty_dsn, EXTENSION)
    host = create_async_engine(url(empty_dsn))
    async with Database.from_engine(host):
        yield host
    await host.dispose()


async def create(engine: AsyncEngine, table: Table) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(table.metadata.create_all)


def definitions(dsn: str, table: str) -> Any:
    query = """SELECT pg_get_indexdef(indexrelid, 0, true) FROM pg_index
        WHERE indrelid = $1::text::regclass AND NOT indisprimary"""
    return rows(dsn, query, table)


# What a declaration makes


async def test_a_model_has_the_columns_and_indexes_of_a_collection_and_its_own(
    engine: AsyncEngine, empty_dsn: str
) -> None:
    await create(engine, Note.__table__)
    columns = "SELECT attname || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute"
    assert set(await rows(empty_dsn, f"{columns} WHERE attrelid = 'notes'::regclass")) >= {
        "id text",
        "vec vector(3)",
        "payload jsonb",
        "document text",
        "created_at timestamp with time zone",
        "updated_at timestamp with time zone",
        "stars integer",
        "title halfvec(2)",
        "words_vec sparsevec(1000)",
    }
    options = "WITH (m='16', ef_construction='64')"
    assert set(await definitions(empty_dsn, "notes")) == {
        f"CREATE INDEX ix_notes_vec ON notes USING hnsw (vec vector_l2_ops) {options}",
        f"CREATE INDEX ix_notes_title ON notes USING hnsw (title halfvec_cosine_ops) {options}",
        "CREATE INDEX ix_notes_words_vec ON notes USING hnsw (words_vec sparsevec_ip_ops) "
        + options,
        "CREATE INDEX ix_notes_payload_containment ON notes USING gin (payload jsonb_path_ops)",
        (
            "CREATE INDEX ix_notes_payload_document_english ON notes USING gin "
            "(to_tsvector('english'::regconfig, "
            "translate(\"left\"(document, 100000), '/.-@<&+~'::text, '        '::text)))"
        ),
    }


async def test_rows_are_added_and_read_through_the_orm(engine: AsyncEngine) -> None:
    await create(engine, Note.__table__)
    words = SparseVector({0: 1.5, 999: -0.1}, 1_000)
    async with AsyncSession(engine) as session:
        note = Note(id="a", embedding=[1, 2, 3], title=[0.5, 0.1], words=words, stars=5)
        session.add(note)
        await session.commit()
    async with AsyncSession(engine) as session:
        found = await session.get_one(Note, "a")
        assert found.embedding is not None
        assert found.title is not None
        assert (found.embedding.dtype, found.embedding.tolist()) == (np.float32, [1, 2, 3])
        assert found.title.tolist() == np.float16([0.5, 0.1]).astype(np.float32).tolist()
        assert isinstance(found.words, SparseVector)
        np.testing.assert_allclose(found.words.to_list(), words.to_list(), rtol=1e-7)
        assert (found.payload, found.document, found.stars) == ({}, None, 5)
        assert (await session.scalars(select(Note.id).where(Note.stars > 4))).all() == ["a"]


def test_a_collection_says_what_statements_need() -> None:
    collection = collection_of(Note.__table__)
    assert list(collection.vectors) == ["vec", "title", "words_vec"]
    assert [spec.column for spec in collection.vectors.values()] == list(collection.vectors)
    assert collection.vectors["words_vec"].operator == "<#>"
    assert collection.attributes == ("author_id", "stars")
    assert (collection.language, collection.namespace) == ("english", None)


def test_any_table_with_id_and_vec_is_a_collection_by_cosine() -> None:
    plain = Table("plain", MetaData(), Column("id", Text), Column("vec", Embedding(7)))
    assert collection_of(plain).vectors == {"vec": VectorSpec(7)}
    ours = collection_of(QortexVector.__table__)  # type: ignore[arg-type]
    assert (ours.vectors["vec"].metric, ours.language) == ("cosine", "english")


def test_what_a_table_is_stays_with_its_copy() -> None:
    copy = Note.__table__.to_metadata(MetaData())  # type: ignore[attr-defined]
    assert collection_of(copy).vectors == collection_of(Note.__table__).vectors


def test_models_share_options_by_inheritance_and_stand_on_any_base_in_any_order() -> None:
    class Shared(VectorMixin):
        __collection__ = Collection(VectorSpec(4, metric="l1"))

    class Convention(DeclarativeBase):
        metadata = MetaData(naming_convention=NAMING_CONVENTION, schema="tenant")

    class First(Shared, Convention):
        __tablename__ = "first"

    class Second(Convention, Shared):
        __tablename__ = "second"
        __table_args__ = ({"comment": "the host's"},)

    assert First.__table__.primary_key.name == "pk_first"
    second = Second.__table__
    assert {index.name for index in second.indexes} == {
        "ix_second_vec",
        "ix_second_payload_containment",
        "ix_second_payload_document",
    }
    assert collection_of(second).vectors["vec"].metric == "l1"
    assert (second.fullname, second.comment) == ("tenant.second", "the host's")


def test_a_model_on_the_packages_base_is_possible_too() -> None:
    class Ours(VectorMixin, Base):
        __tablename__ = "test_collections_ours"
        __collection__ = Collection(VectorSpec(4))

    assert Ours.__table__ in Base.metadata.tables.values()
    Base.metadata.remove(Ours.__table__)
    Base.registry._dispose_cls(Ours)


def test_a_model_without_options_is_told_what_to_declare() -> None:
    with pytest.raises(InvalidInputError, match=r"__collection__ = Collection\(VectorSpec"):

        class Nothing(VectorMixin, HostBase):
            __tablename__ = "nothing"


def test_options_leave_indexes_out() -> None:
    without = Collection(VectorSpec(None, index=None), language=None, payload_index=False)
    assert declared(without).indexes == set()


def test_the_name_of_an_index_fits_postgresql() -> None:
    names = {index.name for index in declared(Collection(VectorSpec(3)), "n" * 63).indexes}
    assert len(names) == 3
    assert all(len(str(name)) <= 63 for name in names)


# Namespaces


async def test_an_id_may_come_again_in_another_namespace_where_it_is_in_the_key(
    engine: AsyncEngine, empty_dsn: str
) -> None:
    collection = Collection(VectorSpec(3), namespace="tenant", namespace_in_key=True)
    table = declared(collection)
    vector_index(table, index=HNSW(where="tenant = 'a:b'"), name="ix_c_big")
    await create(engine, table)
    async with engine.begin() as connection:
        given = [{"id": "x", "tenant": "a:b"}, {"id": "x"}]
        await connection.execute(insert(table), given[:1])
        await connection.execute(insert(table), given[1:])
        found = await connection.execute(select(table.c.tenant).order_by(table.c.tenant))
        assert found.scalars().all() == ["", "a:b"]
    assert any("WHERE tenant = 'a:b'::text" in d for d in await definitions(empty_dsn, "c"))
    assert collection_of(table).attributes == ()


def test_a_namespace_beside_the_key_has_an_index() -> None:
    table = declared(Collection(VectorSpec(3), namespace="tenant"))
    assert [column.name for column in table.primary_key] == ["id"]
    assert "ix_c_tenant" in {index.name for index in table.indexes}


def test_a_namespace_may_be_a_column_of_the_hosts() -> None:
    tenant = mapped_column(String(10), primary_key=True)
    key = Collection(VectorSpec(3), namespace="tenant", namespace_in_key=True)
    table = declared(key, tenant=tenant)
    assert isinstance(table.c.tenant.type, String)
    assert {column.name for column in table.primary_key} == {"id", "tenant"}
    beside = Collection(VectorSpec(3), namespace="tenant")
    with pytest.raises(InvalidInputError, match="namespace_in_key"):
        declared(beside, tenant=mapped_column(String(10), primary_key=True))


# Limits

REFUSED: list[tuple[Any, str]] = [
    (lambda: VectorSpec(16_001, index=None), "1 to 16,000"),
    (lambda: VectorSpec(16_001, storage="half", index=None), "1 to 16,000"),
    (lambda: VectorSpec(0), "1 to 16,000"),
    (lambda: VectorSpec(True), "1 to 16,000"),
    (lambda: VectorSpec(2_001), "at most 2,000"),
    (lambda: VectorSpec(2_001, index=IVFFlat()), "at most 2,000"),
    (lambda: VectorSpec(4_001, storage="half"), "at most 4,000"),
    (lambda: VectorSpec(4_001, quantization="half"), "at most 4,000"),
    (lambda: VectorSpec(1_000_000_001, storage="sparse"), "1 to 1,000,000,000"),
    (lambda: VectorSpec(3, "dot"), "metric must be one of"),  # type: ignore[arg-type]
    (lambda: VectorSpec(3, storage="tiny"), "storage must be one of"),  # type: ignore[arg-type]
    (lambda: VectorSpec(3, quantization="int8"), "quantization must be one of"),  # type: ignore[arg-type]
    (lambda: VectorSpec(3, index="hnsw"), "HNSW"),  # type: ignore[arg-type]
    (lambda: VectorSpec(3, quantization="half", index=None), "declare one"),
    (lambda: VectorSpec(3, storage="half", quantization="half"), "no use"),
    (lambda: VectorSpec(3, storage="sparse", quantization="binary"), "no use"),
    (lambda: VectorSpec(3, storage="sparse", index=IVFFlat()), "use HNSW"),
    (lambda: VectorSpec(3, "l1", index=IVFFlat()), "use HNSW"),
    (lambda: HNSW(m=1), "2 to 100"),
    (lambda: HNSW(m=101, ef_construction=500), "2 to 100"),
    (lambda: HNSW(ef_construction=3), "4 to 1,000"),
    (lambda: HNSW(ef_construction=1_001), "4 to 1,000"),
    (lambda: HNSW(m=33), "at least twice"),
    (lambda: IVFFlat(lists=0), "1 to 32,768"),
    (lambda: IVFFlat(lists=32_769), "1 to 32,768"),
    (lambda: Collection(VectorSpec(3), language="a b"), "text search configuration"),
    (lambda: Collection(VectorSpec(3, storage="sparse")), "vector_column"),
    (lambda: Collection(VectorSpec(3), namespace="payload"), "payload"),
    (lambda: Collection(VectorSpec(3), namespace_in_key=True), "needs namespace"),
    (lambda: Collection(VectorSpec(3), id=np.zeros(0)), "id is a ndarray"),  # type: ignore[arg-type]
    (lambda: declared(Collection(VectorSpec(None))), "declares no dimensions"),
    (lambda: vector_index(Note.__table__, "sound"), "no vector 'sound'"),
]


@pytest.mark.parametrize(("make", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_a_limit_is_said_when_it_is_declared(make: Any, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        make()


COMBINATIONS = [
    pytest.param(*choice, id="-".join(map(str, choice)))
    for choice in itertools.product(
        get_args(Metric), get_args(Storage), (None, *get_args(Quantization)), ("hnsw", "ivfflat")
    )
    if choice[1] != choice[2] and (choice[1] != "sparse" or choice[2] is None)
]


async def test_what_is_declared_the_server_builds_and_what_is_refused_it_has_not(
    engine: AsyncEngine, empty_dsn: str
) -> None:
    server = await asyncpg.connect(empty_dsn)
    has = await server.fetch(
        "SELECT opcname || ' ' || amname FROM pg_opclass o JOIN pg_am a ON a.oid = o.opcmethod"
    )
    known = {row[0] for row in has}
    built = set()
    for number, choice in enumerate(COMBINATIONS):
        metric, storage, quantization, method = choice.values
        index = HNSW() if method == "hnsw" else IVFFlat()
        options: Any = {"storage": storage, "quantization": quantization}
        opclass = VectorSpec(3, metric, **options).operator_class  # hnsw has them all
        if f"{opclass} {method}" not in known:
            with pytest.raises(InvalidInputError, match="pgvector has no"):
                VectorSpec(3, metric, **options, index=index)
            continue
        spec = VectorSpec(3, metric, **options, index=index)
        own = VectorSpec(3, index=None) if storage == "sparse" else spec
        await create(engine, declared(Collection(own), f"c{number}", v=vector_column(spec)))
        built.add(f"{opclass} {method}")
    await server.close()
    vectors = re.compile(r"(vector|halfvec|sparsevec|bit_hamming)_\w+ (hnsw|ivfflat)")
    assert built == set(filter(vectors.fullmatch, known))


WIDEST = [
    (VectorSpec(16_000, index=None), "(v vector(16001))", None),
    (VectorSpec(16_000, storage="half", index=None), "(v halfvec(16001))", None),
    (VectorSpec(1_000_000_000, storage="sparse"), "(v sparsevec(1000000001))", None),
    (VectorSpec(2_000), "(v vector(2001))", "hnsw (v vector_l2_ops)"),
    (VectorSpec(2_000, index=IVFFlat()), "(v vector(2001))", "ivfflat (v vector_l2_ops)"),
    (VectorSpec(4_000, storage="half"), "(v halfvec(4001))", "hnsw (v halfvec_l2_ops)"),
    (
        VectorSpec(4_000, quantization="half"),
        "(v vector(4001))",
        "hnsw ((v::halfvec(4001)) halfvec_l2_ops)",
    ),
    (VectorSpec(16_000, quantization="binary"), "(v vector(16001))", None),
]


@pytest.mark.parametrize(("spec", "wider", "index"), WIDEST, ids=str)
async def test_the_widest_vector_is_built_and_a_wider_one_refused_by_us_as_by_the_server(
    engine: AsyncEngine, empty_dsn: str, spec: VectorSpec, wider: str, index: str | None
) -> None:
    own = Collection(VectorSpec(3, index=None))
    await create(engine, declared(own, v=vector_column(spec)))
    with pytest.raises(InvalidInputError):
        replace(spec, dimensions=(spec.dimensions or 0) + 1)
    wide = [f"CREATE TABLE wide {wider}", *([f"CREATE INDEX ON wide USING {index}"] * bool(index))]
    refusals = asyncpg.ProgramLimitExceededError, asyncpg.InvalidParameterValueError
    with pytest.raises(refusals):
        await execute(empty_dsn, *wide)


async def test_a_vector_beyond_what_its_column_takes_is_refused_by_name(
    engine: AsyncEngine,
) -> None:
    await create(engine, Note.__table__)
    async with engine.connect() as connection:
        for values, error in [
            ({"vec": [1, 2]}, DimensionMismatchError),
            ({"title": [1, 2, 3]}, DimensionMismatchError),
            ({"title": [1e5, 0]}, InvalidInputError),
            ({"words_vec": SparseVector({0: 1}, 7)}, DimensionMismatchError),
            ({"words_vec": dict.fromkeys(range(1_001), 1.0)}, InvalidInputError),
        ]:
            statement = insert(Note.__table__).values(id="a", stars=1, **values)
            with pytest.raises(Exception) as caught:  # noqa: PT011 - SQLAlchemy wraps it
                await connection.execute(statement)
            cause = getattr(caught.value, "orig", None) or caught.value
            assert isinstance(cause, error), caught.value


# Statements


@pytest.mark.parametrize("quantization", [None, "half", "binary"])
@pytest.mark.parametrize("storage", ["full", "half"])
@pytest.mark.parametrize("metric", get_args(Metric))
async def test_the_index_serves_its_distance_and_rescoring_is_exact(
    engine: AsyncEngine, metric: Any, storage: Any, quantization: Any
) -> None:
    if storage == quantization:
        return
    spec = VectorSpec(8, metric, storage=storage, quantization=quantization)
    table = declared(Collection(spec))
    await create(engine, table)
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(200, 8)).astype(np.float32)
    query = rng.normal(size=8).astype(np.float32)
    parameter = bindparam("query", type_=spec.type)
    near = spec.index_distance(table.c.vec, parameter)
    exact = spec.distance(table.c.vec, parameter)
    async with engine.begin() as connection:
        given = [{"id": f"{i:03}", "vec": vector} for i, vector in enumerate(vectors)]
        await connection.execute(insert(table), given)
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        await connection.execute(text("SET LOCAL enable_sort = off"))
        nearest = select(table.c.id).order_by(near).limit(20)
        compiled = str(nearest.compile(dialect=connection.dialect))
        await connection.execute(nearest, {"query": query})
        plan = await connection.exec_driver_sql(
            f"EXPLAIN {compiled.replace('$2::INTEGER', '20').replace('%s', '20')}",
            (spec.type.bind_processor(connection.dialect)(query),),  # type: ignore[misc]
        )
        assert "ix_c_vec" in "\n".join(plan.scalars())
        found = await connection.execute(select(table.c.id, exact), {"query": query})
        got = np.array([distance for _, distance in sorted(found.all())])
    if storage == "half":
        vectors, query = (x.astype(np.float16).astype(np.float32) for x in (vectors, query))
    np.testing.assert_allclose(got, distances(metric, vectors, query), rtol=1e-4, atol=1e-5)


def distances(metric: str, vectors: Any, query: Any) -> Any:
    dots = vectors @ query
    return {
        "cosine": 1 - dots / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query),
        "l2": np.linalg.norm(vectors - query, axis=1),
        "inner_product": -dots,
        "l1": np.abs(vectors - query).sum(axis=1),
    }[metric]


@pytest.mark.slow
def test_statements_of_tables_that_a_program_makes_all_the_time_are_let_go(
    engine: AsyncEngine,
) -> None:
    executor = Database.from_engine(engine).executor
    tables = []
    for number in range(2 * MAX_TABLES):
        table = Table(f"t{number}", MetaData(), Column("id", Text), Column("vec", Embedding(3)))
        VectorRepository(executor, table)
        tables.append(weakref.ref(table))
        del table
    gc.collect()
    assert sum(table() is not None for table in tables) <= MAX_TABLES


@pytest.mark.slow
async def test_forms_of_batches_are_kept_up_to_a_bound(engine: AsyncEngine) -> None:
    names = [f"c{number}" for number in range(7)]
    columns = {name: mapped_column(Text) for name in names}
    collection = Collection(VectorSpec(3, index=None), language=None, payload_index=False)
    table = declared(collection, **columns)
    vectors = VectorRepository(Database.from_engine(engine).executor, table)
    forms = list(itertools.product((None, "all", "some"), repeat=len(names)))
    built = [
        weakref.ref(
            vectors._vectors.by_key.upsert(
                tuple((n, m) for n, m in zip(names, form, strict=True) if m)
            )
        )
        for form in forms
    ]
    gc.collect()
    assert 0 < STATEMENTS.bytes <= MAX_BYTES
    assert 0 < sum(statement() is not None for statement in built) < len(forms) / 2
