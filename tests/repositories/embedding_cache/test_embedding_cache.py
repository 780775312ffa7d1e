"""The embedding cache: what a model is called for, and what the table holds after it."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import itertools
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import event

from qortex_db import (
    CachedEmbedding,
    CacheStats,
    Database,
    DimensionMismatchError,
    InvalidInputError,
    SchemaVersionError,
    Settings,
    migrations,
)
from qortex_db.settings import parse_dsn
from support.catalogue import execute, rows
from support.commands import program
from support.roundtrips import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

DIMENSIONS = 4


def vector(text: str) -> NDArray[np.float32]:
    """What the model of these tests makes of a text."""
    digest = hashlib.md5(text.encode(), usedforsecurity=False).digest()
    return np.frombuffer(digest, np.uint8)[:DIMENSIONS].astype(np.float32)


class Model:
    """Remembers what it was called with."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, texts: list[str]) -> NDArray[np.float32]:
        self.calls.append(texts)
        return np.stack([vector(text) for text in texts])


async def embed(db: Database, texts: list[str], model: Any, **options: Any) -> Any:
    return await db.embeddings.embed(texts, model=model, **({"name": "m"} | options))


def numbered(count: int, prefix: str = "text") -> list[str]:
    return [f"{prefix} {number}" for number in range(count)]


async def count(dsn: str) -> int:
    return len(await rows(dsn, "SELECT model FROM qortex_embedding_cache"))


async def test_each_distinct_text_is_embedded_once_and_rows_keep_the_order(db: Database) -> None:
    model = Model()
    first = await embed(db, ["b", "a", "b"], model)
    again = await embed(db, ["a", "c", "b"], model)
    assert model.calls == [["b", "a"], ["c"]]
    assert first.dtype == again.dtype == np.float32
    assert np.array_equal(first, np.stack([vector("b"), vector("a"), vector("b")]))
    assert np.array_equal(again, np.stack([vector("a"), vector("c"), vector("b")]))


async def test_another_process_finds_it(dsn: str, db: Database) -> None:
    await embed(db, ["Ж 🦆 naïve", "a"], Model())
    code = (
        "import asyncio, sys; from qortex_db import Database\n"
        "async def main():\n"
        "    async with Database.connect(sys.argv[1]) as db:\n"
        "        given = await db.embeddings.embed(['Ж 🦆 naïve'], model=[].index, name='m')\n"
        "        print(given.tolist())\n"
        "asyncio.run(main())"
    )
    done = await program(sys.executable, "-c", code, dsn)
    assert done.out.strip() == str([vector("Ж 🦆 naïve").tolist()]), done.err


async def test_name_revision_and_dimensions_are_part_of_the_key(dsn: str, db: Database) -> None:
    model = Model()
    keys: list[dict[str, Any]] = [
        {},
        {"name": "other"},
        {"revision": "2"},
        {"dimensions": DIMENSIONS},
    ]
    for key in keys * 2:
        await embed(db, ["a"], model, **key)
    assert len(model.calls) == len(keys) == await count(dsn)


async def test_a_text_is_its_code_points_and_is_not_stored(dsn: str, db: Database) -> None:
    model = Model()
    texts = ["", " ", "é", "e\u0301", "nul \x00", "secret", "x" * 1_000_000]
    assert (await embed(db, texts, model)).shape == (len(texts), DIMENSIONS)
    assert model.calls == [texts]
    assert (await embed(db, texts, model)).shape == (len(texts), DIMENSIONS)
    assert len(model.calls) == 1
    stored = "".join(await rows(dsn, "SELECT c::text FROM qortex_embedding_cache c"))
    assert "secret" not in stored
    assert hashlib.sha256(b"secret").hexdigest() in stored


def lengths(texts: list[str]) -> list[list[float]]:
    return [[1.0 + len(text)] for text in texts]


async def test_a_function_of_a_module_may_go_by_its_own_name(db: Database) -> None:
    await db.embeddings.embed(["a"], model=lengths)
    assert (await db.embeddings.stats()).models == {f"{__name__}.lengths": 1}
    for model in (lambda texts: lengths(texts[:]), [].index, Model()):
        with pytest.raises(InvalidInputError, match="pass name"):
            await db.embeddings.embed(["a"], model=model)


async def test_no_texts_need_no_model(db: Database) -> None:
    model = Model()
    assert (await embed(db, [], model)).shape == (0, 0)
    assert (await embed(db, [], model, dimensions=3)).shape == (0, 3)
    assert model.calls == []


async def test_async_models_lists_and_callables_of_every_kind_are_taken(db: Database) -> None:
    async def coroutine(texts: list[str]) -> list[list[float]]:
        await asyncio.sleep(0)
        return [vector(text).tolist() for text in texts]

    class Callable:
        async def __call__(self, texts: list[str]) -> NDArray[np.float32]:
            return Model()(texts)

    models: list[Any] = [
        coroutine,
        Callable(),
        functools.partial(coroutine),
        lambda texts: [tuple(vector(text).astype(np.float16)) for text in texts],
        lambda texts: np.stack([vector(text) for text in texts]).astype(np.int64),
    ]
    for number, model in enumerate(models):
        given = await embed(db, ["a", "b"], model, name=f"model {number}")
        assert np.array_equal(given, np.stack([vector("a"), vector("b")]))


async def test_a_model_that_blocks_leaves_the_loop_and_the_pool_free(dsn: str) -> None:
    loop = asyncio.get_running_loop()
    async with Database.connect(Settings(dsn=dsn, pool_min_size=1, pool_max_size=1)) as db:

        def model(texts: list[str]) -> NDArray[np.float32]:
            # Only where this thread is not the loop's, and the one connection is free.
            asyncio.run_coroutine_threadsafe(db.factors.save({"a": 2.0}), loop).result(10)
            return Model()(texts)

        await embed(db, ["a"], model)
        assert await db.factors.load() == {"a": 2.0}


async def test_hits_are_one_round_trip_and_misses_one_more(dsn: str) -> None:
    async with counted(dsn) as trips:
        settings = Settings(dsn=trips.dsn, pool_min_size=1, pool_max_size=1)
        async with Database.connect(settings) as db:
            model = Model()
            await embed(db, ["warm"], model)
            async with trips.expect(2):
                await embed(db, numbered(200), model)
            async with trips.expect(1):
                await embed(db, numbered(200), model)
            async with trips.expect(1 + 3):
                await embed(db, numbered(300), model, batch_size=40)
    assert [len(texts) for texts in model.calls] == [1, 200, 40, 40, 20]


async def test_ten_thousand_texts_go_to_the_model_in_batches(dsn: str, db: Database) -> None:
    model = Model()
    texts = numbered(10_001)
    given = await embed(db, texts, model)
    assert {len(batch) for batch in model.calls} == {256, 10_001 % 256}
    again = await embed(db, texts[::-1], model)
    assert np.array_equal(given, again[::-1])
    assert (sum(map(len, model.calls)), await count(dsn)) == (10_001, 10_001)


async def test_a_model_that_fails_loses_only_its_own_batch(dsn: str, db: Database) -> None:
    class ModelError(Exception):
        pass

    good = Model()

    def failing(texts: list[str]) -> NDArray[np.float32]:
        if "text 5" in texts:
            raise ModelError
        return good(texts)

    for _ in range(2):
        with pytest.raises(ModelError):
            await embed(db, numbered(8), failing, batch_size=2)
        assert await count(dsn) == 4
    assert good.calls == [numbered(2), ["text 2", "text 3"]]
    await embed(db, numbered(8), good, batch_size=100)
    assert good.calls[-1] == numbered(8)[4:]


async def test_a_model_may_use_its_array_again(db: Database) -> None:
    held = np.zeros((1, DIMENSIONS), np.float32)

    def model(texts: list[str]) -> NDArray[np.float32]:
        held[0] = vector(texts[0])
        return held

    given = await embed(db, ["a", "b"], model, batch_size=1)
    assert np.array_equal(given, np.stack([vector("a"), vector("b")]))


BAD: dict[str, tuple[Callable[[list[str]], object], str]] = {
    "too few": (lambda _: [[1.0]], "returned 1 embeddings for 2 texts"),
    "one flat array": (lambda _: np.ones(384), "returned 384 embeddings for 2 texts"),
    "nothing": (lambda _: None, "returned a NoneType"),
    "NaN": (lambda _: [[1.0, 2.0], [1.0, np.nan]], "embedding 1 .* has NaN at position 1"),
    "infinity": (lambda _: [[1e300, 2.0]] * 2, "embedding 0 .* has infinity"),
    "ragged": (lambda _: [[1.0, 2.0], [1.0]], "1 dimensions here, but 2"),
    "text": (lambda texts: texts, "embedding 0 .* is a str"),
    "empty": (lambda _: [[], []], "embedding 0 .* is empty"),
    "too long": (lambda _: np.ones((2, 16_001)), "16001 dimensions; at most 16,000"),
}


@pytest.mark.parametrize("name", BAD)
async def test_what_is_no_embedding_is_refused_and_not_stored(
    dsn: str, db: Database, name: str
) -> None:
    model, message = BAD[name]
    with pytest.raises(InvalidInputError, match=message) as caught:
        await embed(db, ["secret", "b"], model)
    assert "secret" not in str(caught.value)
    assert await count(dsn) == 0


async def test_dimensions_are_those_asked_for_or_those_of_before(dsn: str, db: Database) -> None:
    with pytest.raises(DimensionMismatchError) as caught:
        await embed(db, ["a"], Model(), dimensions=3)
    assert (caught.value.expected, caught.value.actual) == (3, 4)
    await embed(db, ["a"], Model())
    with pytest.raises(DimensionMismatchError, match="another revision"):
        await embed(db, ["a", "b"], lambda given: np.ones((len(given), 2)))
    assert await count(dsn) == 1


BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"texts": "one text"}, "texts is a str"),
    ({"texts": 5}, "texts is a int"),
    ({"texts": ["a", None]}, r"texts\[1\] is a NoneType"),
    ({"texts": ["\ud800"]}, "lone surrogate"),
    ({"model": "all-MiniLM-L6-v2"}, "callable"),
    ({"name": ""}, "name is empty"),
    ({"name": "x" * 1_025}, "1025 bytes"),
    ({"revision": 5}, "revision is a int"),
    ({"revision": None}, "revision is a NoneType"),
    ({"dimensions": 0}, "dimensions is 0"),
    ({"dimensions": 16_001}, "dimensions is 16001"),
    ({"batch_size": 0}, "batch_size is 0"),
    ({"max_rows": -1}, "max_rows"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS)
async def test_what_cannot_be_asked_for_is_refused(
    db: Database, arguments: dict[str, Any], message: str
) -> None:
    model = Model()
    with pytest.raises(InvalidInputError, match=message):
        await embed(db, **({"texts": ["a"], "model": model} | arguments))
    assert model.calls == []


@pytest.mark.parametrize("bound", [1, 7, 32, 33, 100, 1_000])
async def test_the_table_never_holds_more_than_the_bound(
    dsn: str, db: Database, bound: int
) -> None:
    model = Model()
    for number in range(4):
        texts = numbered(bound, f"round {number}")
        assert (await embed(db, texts, model, max_rows=bound, batch_size=50)).shape[0] == bound
        assert bound * 0.6 <= await count(dsn) <= bound
    await embed(db, numbered(1_500), model, max_rows=0)
    assert await count(dsn) > 1_500


async def test_what_was_used_least_lately_goes_first(dsn: str, db: Database) -> None:
    model = Model()
    await embed(db, numbered(20, "old"), model, max_rows=32)
    await execute(dsn, "UPDATE qortex_embedding_cache SET last_used = now() - interval '2 days'")
    await embed(db, numbered(5, "old"), model, max_rows=32)  # are used
    await embed(db, numbered(27, "new"), model, max_rows=32)
    model.calls.clear()
    await embed(db, numbered(5, "old") + numbered(27, "new"), model, max_rows=32)
    assert model.calls == []


async def test_a_hit_writes_at_most_once_an_hour(dsn: str) -> None:
    async with counted(dsn) as trips:
        settings = Settings(dsn=trips.dsn, pool_min_size=1, pool_max_size=1)
        async with Database.connect(settings) as db:
            await embed(db, ["a", "b"], Model())
            age = "UPDATE qortex_embedding_cache SET last_used = now() - interval '61 minutes'"
            for _ in range(2):  # the first one prepares the statement
                await execute(dsn, age)
                before = trips.count
                await embed(db, ["a"], Model())
            assert trips.count - before == 2
            async with trips.expect(1):
                await embed(db, ["a"], Model())
    fresh = "SELECT model FROM qortex_embedding_cache WHERE last_used > now() - interval '1 minute'"
    assert len(await rows(dsn, fresh)) == 1


@pytest.mark.parametrize("lane", ["alone", "watched", "together"])
async def test_a_use_is_noted_in_every_lane(dsn: str, db: Database, lane: str) -> None:
    await embed(db, ["a", "b"], Model())
    await execute(dsn, "UPDATE qortex_embedding_cache SET last_used = now() - interval '1 day'")
    if lane == "watched":  # as tracing does
        event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
    if lane == "together":
        async with db.unit_of_work() as uow:
            await uow.embeddings.embed(["a"], model=Model(), name="m")
    else:
        await embed(db, ["a"], Model())
    fresh = "SELECT model FROM qortex_embedding_cache WHERE last_used > now() - interval '1 minute'"
    assert await rows(dsn, fresh) == ["m"]


@pytest.mark.parametrize("lane", ["alone", "watched", "together"])
@pytest.mark.parametrize("kind", ["a read-only database", "a role that reads"])
async def test_a_hit_is_one_where_nothing_can_be_written(dsn: str, lane: str, kind: str) -> None:
    async with Database.connect(dsn) as db:
        stored = await embed(db, ["a", "b"], Model())
    await execute(dsn, "UPDATE qortex_embedding_cache SET last_used = now() - interval '1 day'")
    name = parse_dsn(dsn).url.database
    if kind == "a read-only database":
        await execute(dsn, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        reader = dsn
    else:
        role = f"reader_{lane}"
        await execute(dsn, f"CREATE ROLE {role} LOGIN")
        await execute(dsn, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        reader = dsn.replace("postgres:@", f"{role}@")
        assert reader != dsn
    try:
        async with Database.connect(reader) as db:
            if lane == "watched":
                event.listen(db.engine.sync_engine, "before_cursor_execute", lambda *_: None)
            if lane == "together":
                async with db.unit_of_work() as uow:
                    found = await uow.embeddings.embed(["a"], model=Model(), name="m")
                    assert (await uow.embeddings.stats()).rows == 2
            else:
                found = await embed(db, ["a"], Model())
        assert np.array_equal(found, stored[:1])
        fresh = "SELECT 1 FROM qortex_embedding_cache WHERE last_used > now() - interval '1 hour'"
        assert await rows(dsn, fresh) == []
    finally:
        if kind == "a role that reads":
            await execute(dsn, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def test_a_smaller_bound_is_reached_step_by_step(dsn: str, db: Database) -> None:
    model = Model()
    await embed(db, numbered(3_000), model)
    sizes = [3_000]
    for number in range(12):
        await embed(db, numbered(16, f"round {number}"), model, max_rows=64)
        sizes.append(await count(dsn))
    assert all(0 < a - b <= 2 * 256 for a, b in itertools.pairwise(sizes) if b > 64)
    assert sizes[-1] <= 64


@pytest.mark.slow
async def test_evicting_reads_no_more_of_a_large_table(dsn: str, db: Database) -> None:
    await embed(db, ["a"], Model())
    await execute(
        dsn,
        "INSERT INTO qortex_embedding_cache SELECT sha256(i::text::bytea), 'other', '', 0, "
        "(SELECT vec FROM qortex_embedding_cache LIMIT 1) FROM generate_series(1, 50000) i",
        "ANALYZE qortex_embedding_cache",
    )
    read = (
        "SELECT (coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::text "
        "FROM pg_stat_user_tables WHERE relname = 'qortex_embedding_cache'"
    )

    async def tuples() -> int:
        # A backend tells its numbers at its next statement, a second later at the latest.
        await asyncio.sleep(1.2)
        await db.embeddings.embed([], model=Model(), name="m")
        await db.factors.load()
        await asyncio.sleep(0.2)
        return int((await rows(dsn, read))[0])

    before = await tuples()
    await embed(db, numbered(10), Model(), max_rows=50_000)
    assert await tuples() - before < 10 * 3 * 60  # ten groups of 32, not 50,000 rows


@pytest.mark.slow
async def test_many_tasks_insert_and_evict_at_once_without_an_error(dsn: str) -> None:
    rng = np.random.default_rng(0)
    settings = Settings(dsn=dsn, pool_max_size=8)
    async with Database.connect(settings) as db:

        async def work() -> None:
            model = Model()
            for _ in range(15):
                texts = [f"text {number}" for number in rng.permutation(120)[:40]]
                given = await embed(db, texts, model, max_rows=64, batch_size=10)
                assert np.array_equal(given, np.stack([vector(text) for text in texts]))

        await asyncio.gather(*(work() for _ in range(16)))
        await embed(db, numbered(64, "last"), Model(), max_rows=64)
    assert await count(dsn) <= 64
    deadlocks = "SELECT deadlocks::text FROM pg_stat_database WHERE datname = current_database()"
    assert await rows(dsn, deadlocks) == ["0"]


@pytest.mark.slow
@pytest.mark.parametrize("bound", [0, 3_000])
async def test_the_same_texts_in_opposite_orders_do_not_deadlock(dsn: str, bound: int) -> None:
    together = asyncio.Barrier(4)

    async def model(texts: list[str]) -> NDArray[np.float32]:
        await together.wait()  # all miss, and store at once
        return Model()(texts)

    async with Database.connect(dsn) as db:
        for number in range(5):
            texts = numbered(3_000, f"round {number}")
            options = {"batch_size": 3_000, "max_rows": bound}
            orders = (texts, texts[::-1], texts, texts[::-1])
            await asyncio.gather(*(embed(db, order, model, **options) for order in orders))
    assert await count(dsn) == 15_000 if bound == 0 else await count(dsn) <= bound


@pytest.mark.slow
async def test_two_processes_that_embed_the_same_texts_both_succeed(dsn: str) -> None:
    code = (
        "import asyncio, sys, numpy as np; from qortex_db import Database\n"
        "async def main():\n"
        "    async with Database.connect(sys.argv[1]) as db:\n"
        "        for i in range(20):\n"
        "            texts = [f'{i} {j}' for j in range(100)][::int(sys.argv[2])]\n"
        "            model = lambda given: [[len(text), 1] for text in given]\n"
        "            given = await db.embeddings.embed(\n"
        "                texts, model=model, name='m', batch_size=30, max_rows=500)\n"
        "            assert given[:, 0].tolist() == [len(text) for text in texts]\n"
        "asyncio.run(main())"
    )
    done = await asyncio.gather(
        *(program(sys.executable, "-c", code, dsn, order) for order in ("1", "-1", "1", "-1"))
    )
    assert [one.code for one in done] == [0] * 4, [one.err for one in done]
    assert 300 <= await count(dsn) <= 500


async def test_a_unit_of_work_stores_with_its_commit(dsn: str, db: Database) -> None:
    model = Model()
    async with db.unit_of_work() as uow:
        for _ in range(2):
            await uow.embeddings.embed(["a"], model=model, name="m")
        assert len(model.calls) == 1
        await uow.session.rollback()
    assert await count(dsn) == 0
    async with db.unit_of_work() as uow:
        given = await uow.embeddings.embed(["a"], model=model, name="m", max_rows=1)
        await uow.vectors.upsert([{"id": "a", "embedding": np.tile(given[0], 2)}])
        digest = hashlib.sha256(b"a").digest()
        held = await uow.session.get(CachedEmbedding, (digest, "m", "", 0))
        assert held is not None
        assert np.array_equal(held.embedding, vector("a"))
    assert (await count(dsn), await db.vectors.count()) == (1, 1)


async def test_clear_forgets_a_model_or_all_and_stats_count(db: Database) -> None:
    assert await db.embeddings.stats() == CacheStats(0, 0, {})
    await embed(db, numbered(6_000), Model(), name="one", batch_size=6_000)
    await embed(db, numbered(3), Model(), name="two", revision="a")
    await embed(db, numbered(2), Model(), name="two", revision="b")
    stats = await db.embeddings.stats()
    assert (stats.rows, stats.models) == (6_005, {"one": 6_000, "two": 5})
    assert stats.bytes > 6_005 * 50
    assert await db.embeddings.clear("two") == 5
    assert await db.embeddings.clear("unknown") == 0
    assert (await db.embeddings.stats()).models == {"one": 6_000}
    assert await db.embeddings.clear() == 6_000
    assert await db.embeddings.stats() == CacheStats(0, 0, {})


async def test_it_works_in_a_schema_of_its_own_and_on_each_server(each_empty_dsn: str) -> None:
    settings = Settings(dsn=each_empty_dsn, dimensions=8, db_schema="mine")
    await migrations.upgrade(settings, extension_schema="extensions")
    (database,) = await rows(each_empty_dsn, "SELECT current_database()")
    path = f'ALTER DATABASE "{database}" SET search_path = public, extensions'
    await execute(each_empty_dsn, path)
    model = Model()
    async with Database.connect(settings) as db:
        for _ in range(2):
            await embed(db, numbered(10), model, max_rows=8, batch_size=5)
            async with db.unit_of_work() as uow:
                await uow.embeddings.embed(numbered(3, "uow"), model=model, name="m", max_rows=8)
        assert 0 < (await db.embeddings.stats()).rows <= 8
        assert await db.embeddings.clear("m") > 0
    assert await rows(each_empty_dsn, "SELECT model FROM mine.qortex_embedding_cache") == []


async def test_an_extension_off_the_path_is_found_by_a_later_upgrade(empty_dsn: str) -> None:
    await migrations.upgrade(Settings(dsn=empty_dsn), "qortex_db_0005", extension_schema="ext")
    assert (await migrations.upgrade(Settings(dsn=empty_dsn))).is_current


async def test_a_database_before_the_revision_says_what_to_run(empty_dsn: str) -> None:
    settings = Settings(dsn=empty_dsn)
    await migrations.upgrade(settings, "qortex_db_0005")
    async with Database.connect(settings) as db:
        with pytest.raises(SchemaVersionError, match="qortex-db upgrade"):
            await embed(db, ["a"], Model())
