"""Whatever a public method is given, what it raises its docstring names, or docs/errors.md for all.

Methods are found by introspection: a new one is tried as soon as it is there. Other seeds:
`FUZZ_SEED=7 FUZZ_EXAMPLES=500 pytest tests/test_fuzz.py`.
"""

from __future__ import annotations

import asyncio
import enum
import inspect
import os
import re
import reprlib
from collections.abc import AsyncIterator, Callable, Container, Iterator
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, seed, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import qortex_db
from qortex_db import (
    Collection,
    Database,
    FairPool,
    Learner,
    LearnerConfig,
    OutcomeUnknownError,
    PgVectorIndex,
    PostgresInteroceptionStore,
    PostgresLearningStore,
    QortexDbError,
    SearchHits,
    Settings,
    UnitOfWork,
    VectorMixin,
    VectorSpec,
    repositories,
    vector_column,
)
from qortex_db.testing.factories import SearchHitFactory
from support import arbitrary
from support.arbitrary import BEYOND, BY_NAME, GOOD, Colour, anything
from support.commands import ROOT
from support.servers import copied

if TYPE_CHECKING:
    from pathlib import Path

    from qortex_db.testing import Server

SEED = int(os.environ.get("FUZZ_SEED", "0"))
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "15"))
TRIED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)


class Base(DeclarativeBase):
    pass


class Stranger(VectorMixin, Base):
    """A collection with a host's columns of every type."""

    __tablename__ = "strangers"
    __collection__ = Collection(VectorSpec(8), namespace="tenant")

    thumb: Mapped[Any | None] = vector_column(VectorSpec(8, "l2", "half"))
    words: Mapped[Any | None] = vector_column(VectorSpec(10, "inner_product", "sparse"))
    count: Mapped[int | None] = mapped_column(sa.BigInteger)
    small: Mapped[int | None] = mapped_column(sa.SmallInteger)
    ratio: Mapped[float | None]
    exact: Mapped[Any | None] = mapped_column(sa.Numeric(10, 2))
    flag: Mapped[bool | None]
    name: Mapped[str | None] = mapped_column(sa.String(5))
    day: Mapped[Any | None] = mapped_column(sa.Date)
    moment: Mapped[Any | None] = mapped_column(sa.DateTime(timezone=True))
    local: Mapped[Any | None] = mapped_column(sa.DateTime)
    clock: Mapped[Any | None] = mapped_column(sa.Time)
    span: Mapped[Any | None] = mapped_column(sa.Interval)
    key: Mapped[Any | None] = mapped_column(sa.Uuid)
    raw: Mapped[bytes | None]
    notes: Mapped[Any | None] = mapped_column(JSONB)
    tags: Mapped[Any | None] = mapped_column(ARRAY(sa.Text))
    levels: Mapped[Any | None] = mapped_column(ARRAY(sa.Integer))
    colour: Mapped[Any | None] = mapped_column(sa.Enum(Colour))


ANY_CALL = frozenset(
    re.findall(
        r"`(\w+Error)`",
        (ROOT / "docs/errors.md").read_text().partition("\n## What any call may raise\n")[2],
    )
)
"""What is told once for all methods."""

SMALL = {
    **dict.fromkeys(("max_items", "max_filter_values"), 1),
    **dict.fromkeys(("max_payload_bytes", "max_document_bytes", "max_context_bytes"), 8),
    "max_search_many_hits": 10,
}
"""Limits that most of what is tried is beyond."""

CALLED = {"model", "on_progress", "rejects", "scorer"}
"""What is called with arguments of ours, and may raise what it likes."""


def _learner(of: Any) -> Learner:
    return Learner(LearnerConfig("l"), store=of, rng=np.random.default_rng(0))


class Target(NamedTuple):
    """A class of the public interface, and how one is had over a database or a unit of work."""

    owner: type
    make: Callable[[Any], Any]
    lanes: bool = True


TARGETS: dict[str, Target] = {
    "vectors": Target(repositories.VectorRepository, lambda of: of.vectors),
    "collection": Target(
        repositories.VectorRepository, lambda of: of.collection(Stranger, namespace="t")
    ),
    "factors": Target(repositories.FactorRepository, lambda of: of.factors),
    "edges": Target(repositories.EdgeRepository, lambda of: of.edges),
    "arms": Target(repositories.ArmRepository, lambda of: of.arms),
    "idempotency": Target(repositories.IdempotencyRepository, lambda of: of.idempotency),
    "embeddings": Target(repositories.EmbeddingRepository, lambda of: of.embeddings),
    "index": Target(PgVectorIndex, lambda of: PgVectorIndex(of, dimensions=8), lanes=False),
    "interoception": Target(PostgresInteroceptionStore, PostgresInteroceptionStore, lanes=False),
    "learning": Target(
        PostgresLearningStore, lambda of: PostgresLearningStore("l", of), lanes=False
    ),
    "learner": Target(Learner, _learner, lanes=False),
    "database": Target(Database, lambda of: of, lanes=False),
    "work": Target(UnitOfWork, lambda of: UnitOfWork(AsyncSession(of.engine)), lanes=False),
    "hits": Target(
        SearchHits,
        lambda _: SearchHits(SearchHitFactory.build_batch(2), requested=2, complete=True),
        lanes=False,
    ),
}


def methods() -> Iterator[str]:
    """Every method with an argument, inherited ones of ours too."""
    for name, target in TARGETS.items():
        for method in dir(target.owner):
            made = inspect.getattr_static(target.owner, method)
            made = getattr(made, "__func__", made)
            plain = inspect.isfunction(made) and not method.startswith("_")
            if plain and made.__module__.startswith("qortex_db") and len(_parameters(made)) > 0:
                yield f"{name}.{method}"


def _parameters(method: Any) -> list[inspect.Parameter]:
    parameters = inspect.signature(inspect.unwrap(method)).parameters
    return [parameter for name, parameter in parameters.items() if name not in ("self", "cls")]


def test_every_public_class_with_methods_of_a_database_is_tried() -> None:
    found = {
        owner
        for owner in (
            *vars(repositories).values(),
            *(getattr(qortex_db, name) for name in qortex_db.__all__),
        )
        if inspect.isclass(owner)
        and any(
            inspect.iscoroutinefunction(made) or inspect.isasyncgenfunction(made)
            for made in map(inspect.unwrap, filter(inspect.isfunction, vars(owner).values()))
        )
    }
    tried = {target.owner for target in TARGETS.values()}
    found.remove(OutcomeUnknownError)  # it takes a Database and nothing else
    found.remove(FairPool)  # an engine's, whose waits take no values
    # Parts of what is tried.
    assert {owner for owner in found if not any(issubclass(one, owner) for one in tried)} == set()


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="module")
def lanes(server: Server, template: str, runner: asyncio.Runner) -> Iterator[dict[str, Database]]:
    """A database, one whose statements someone listens to, and one that takes little."""

    async def opened(dsn: str) -> dict[str, Database]:
        plain, watched = [await Database.connect(dsn).open() for _ in range(2)]
        limited = await Database.connect(Settings(dsn=dsn, **SMALL)).open()
        sa.event.listen(watched.engine.sync_engine, "before_cursor_execute", lambda *_: None)
        async with plain.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        for of in (plain.vectors, plain.collection(Stranger, namespace="t")):
            rows = [{"id": f"v{n:05}", "embedding": np.arange(8) + n} for n in range(5)]
            await of.upsert([row | {"payload": {"a": n}} for n, row in enumerate(rows)])
        return {"by itself": plain, "watched": watched, "limited": limited}

    async def closed(made: dict[str, Database]) -> None:
        for database in made.values():
            await database.close()

    with copied(server, template) as dsn:
        made = runner.run(opened(dsn))
        yield made
        runner.run(closed(made))


class _RollBack(Exception):  # noqa: N818 - it is none
    pass


class Case(NamedTuple):
    """A call."""

    lane: str
    arguments: dict[str, Any]

    def __repr__(self) -> str:
        shown = reprlib.Repr()  # of 10,000 levels
        shown.maxdict = shown.maxlist = 20
        shown.maxother = 90
        try:
            return f"{self.lane}: {shown.repr(self.arguments)}"
        except ValueError:  # Python doesn't write the longest numbers
            return f"{self.lane}: {sorted(self.arguments)}"


@st.composite
def cases(draw: st.DrawFn, method: Any, kinds: list[str]) -> Case:
    """Good arguments but for one or two."""
    parameters = _parameters(method)
    names = [parameter.name for parameter in parameters]
    bad = draw(st.sets(st.sampled_from(names), min_size=1, max_size=2))
    given = {}
    for parameter in parameters:
        name = parameter.name
        if name in bad:
            drawn = draw(st.one_of(BY_NAME.get(name, anything), anything))
            if name in CALLED and callable(drawn):
                drawn = _good(method, parameter)
            given[name] = drawn
        elif parameter.default is inspect.Parameter.empty:
            given[name] = _good(method, parameter)
    return Case(draw(st.sampled_from(kinds)), given)


def beyond(method: Any) -> Iterator[Case]:
    """Good arguments but for one, of which there is too much, or too little."""
    parameters = _parameters(method)
    needed = [one for one in parameters if one.default is inspect.Parameter.empty]
    good = {parameter.name: _good(method, parameter) for parameter in needed}
    for parameter in parameters:
        for value in BEYOND.get(parameter.name, ()):
            yield Case("limited", {**good, parameter.name: value})


def _good(method: Any, parameter: inspect.Parameter) -> Any:
    name = parameter.name
    if name in CALLED and "collection" not in method.__qualname__:
        return lambda *given: [arbitrary.VECTOR for _ in given[0]] if name == "model" else [1, 2]
    if name == "observations" and "Edge" in method.__qualname__:
        return [("a", "b", 0.5)]
    if name == "outcomes" and "Learner" in method.__qualname__:
        return [GOOD["outcome"]]
    if name == "deltas" and "Learner" in method.__qualname__:
        return {"a": {"alpha_delta": 1.0}}
    return GOOD.get(name)


async def called(method: Any, arguments_: dict[str, Any]) -> None:
    outcome = method(**arguments_)
    if isinstance(outcome, AsyncIterator):
        async for _ in outcome:
            pass
    elif inspect.isawaitable(outcome):
        await outcome


def named(made: Any) -> set[str]:
    """The errors that a docstring says may be raised."""
    told = (inspect.getdoc(made) or "").partition("\nRaises:\n")[2]
    return set(re.findall(r"^    (\w+): ", told, re.MULTILINE))


def check_named(error: QortexDbError, made: Any, besides: Container[str]) -> None:
    kind = type(error).__name__
    if kind not in named(made) and kind not in besides:
        raise AssertionError(f"{kind} is missing in Raises: of {made.__qualname__}") from error


async def tried(of: Any, target: Target, name: str, arguments_: dict[str, Any]) -> None:
    try:
        await called(getattr(target.make(of), name), arguments_)
    except ValidationError:
        if name not in ("connect", "create"):  # of a DSN, by Settings
            raise
    except QortexDbError as error:
        # "The driver failed" is no answer to an argument; of an expression that is no condition the
        # server says so.
        if type(error) is QortexDbError:
            if error.sqlstate != "42804":
                raise
        else:
            check_named(error, getattr(target.owner, name), ANY_CALL)


@pytest.mark.slow
@pytest.mark.parametrize("which", list(methods()))
def test_a_method_raises_only_what_its_docstring_names(
    lanes: dict[str, Database],
    runner: asyncio.Runner,
    which: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # a path that is given may be written to
    key, _, name = which.partition(".")
    target = TARGETS[key]
    method = getattr(target.owner, name)
    kinds = ["by itself", "limited", *(("watched", "in a unit of work") if target.lanes else ())]

    async def in_a_unit_of_work(given_: dict[str, Any]) -> None:
        with suppress(_RollBack):
            async with lanes["by itself"].unit_of_work() as uow:
                await tried(uow, target, name, given_)
                raise _RollBack

    @seed(SEED)
    @TRIED
    @given(cases(method, kinds))
    def check(case: Case) -> None:
        lane, given_ = case
        if lane == "in a unit of work":
            runner.run(in_a_unit_of_work(given_))
        else:
            runner.run(tried(lanes[lane], target, name, given_))

    for case in beyond(method):
        check = example(case)(check)
    check()


COME_OUT = {"Database", "FairPool", "SearchGroups", "SearchHits"}
"""What the package makes itself, or SQLAlchemy does."""


def made() -> list[str]:
    """The public classes and functions that a program calls itself."""
    found = []
    for name in qortex_db.__all__:
        owner = getattr(qortex_db, name)
        is_class = inspect.isclass(owner)
        if not (is_class or inspect.isfunction(owner)) or name in COME_OUT:
            continue
        if is_class and (
            issubclass(owner, (BaseException, BaseModel, enum.Enum)) or hasattr(owner, "__table__")
        ):
            continue
        if is_class and issubclass(owner, Enum):
            continue
        if is_class and owner.__init__ in (object.__init__, Protocol.__init__):
            continue
        if not inspect.isclass(owner) or not getattr(owner, "_is_protocol", False):
            found.append(name)
    return found


def a_table() -> sa.Table:
    columns = (sa.Column("id", sa.Text, primary_key=True), sa.Column("payload", JSONB))
    return sa.Table("t", sa.MetaData(), *columns, sa.Column("vec", qortex_db.Embedding(8)))


NEEDED: dict[str, Callable[[], Any]] = {
    "config": lambda: LearnerConfig("l"),
    "dimensions": lambda: 8,
    "function": lambda: float,
    "kind": lambda: "keyword",
    "pool": lambda: "postgresql://localhost/x",
    "spec": lambda: VectorSpec(8),
    "table": a_table,
    "vector": lambda: VectorSpec(8),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", made())
def test_what_a_program_makes_is_made_or_refused_as_its_docstring_says(name: str) -> None:
    owner = getattr(qortex_db, name)
    parameters = [
        parameter
        for parameter in inspect.signature(owner).parameters.values()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    if not parameters:
        return

    @seed(SEED)
    @TRIED
    @given(st.sampled_from(parameters), anything)
    def check(bad: inspect.Parameter, value: Any) -> None:
        given_ = {
            parameter.name: NEEDED.get(parameter.name, lambda: "a")()
            for parameter in parameters
            if parameter.default is parameter.empty
        }
        try:
            owner(**{**given_, bad.name: value})
        except ValidationError:
            pass
        except QortexDbError as error:
            check_named(error, owner, set())

    check()
