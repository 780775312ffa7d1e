"""The report against plain SQL, and what a page may hold."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from qortex_db import (
    ArmState,
    Database,
    InvalidInputError,
    Posterior,
    QueryTimeoutError,
    SchemaVersionError,
    Settings,
)
from qortex_db.report import figures, page, read, reading
from support.report_data import CONTEXTS, fill
from support.roundtrips import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from qortex_db.report import Report

VOID = {"meta", "br", "hr", "img", "link", "input"}
HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=y>]]></style>&lt;\u202e\x1b[31m"
LARGE = """
INSERT INTO learning_arm_states (learner_name, context_hash, arm_id, alpha, beta, pulls)
SELECT 'l' || n % 50, 'c' || n % 1000, 'arm' || n, 1 + n % 7, 1 + n % 11, n % 18
FROM generate_series(1, 100000) n;
INSERT INTO learning_events (learner_name, context_hash, arm_id, kind, pulls_added, recorded_at)
SELECT 'l' || n % 50, 'c' || n % 1000, 'arm' || n, 'observe', 1, now() - make_interval(mins => n)
FROM generate_series(1, 100000) n;
INSERT INTO learning_contexts (context_hash, context)
SELECT 'c' || n, jsonb_build_object('key', repeat('x', 100000)) FROM generate_series(1, 999) n;
INSERT INTO interoception_factors
SELECT 'node' || n, n % 60 / 10.0 FROM generate_series(1, 100000) n;
INSERT INTO interoception_edge_buffer (src_id, tgt_id, hit_count, scores)
SELECT 'a' || n, 'b' || n, n % 5000, '[0.8, 0.6]' FROM generate_series(1, 100000) n;
"""


class Page(HTMLParser):
    """The elements of a page, and its texts; it fails on a page that is not well nested."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] += 1
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)


async def sql(dsn: str, query: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def execute(dsn: str, script: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(script)
    await connection.close()


@pytest.fixture
async def filled(dsn384: str) -> AsyncIterator[Database]:
    settings = Settings(dsn=dsn384, learning_history=True)
    async with Database.connect(settings) as db:
        await fill(db, rounds=60)
        yield db


async def test_the_figures_are_those_of_plain_sql(filled: Database, dsn384: str) -> None:
    report = await read(filled)
    sums = await sql(
        dsn384,
        "SELECT learner_name, context_hash, count(*), sum(pulls), sum(total_reward) "
        "FROM learning_arm_states GROUP BY 1, 2 ORDER BY sum(pulls) DESC",
    )
    panels = {(one.context.learner, one.context.hash): one for one in report.panels}
    assert report.contexts == len(sums) == len(panels) == 3
    (names,) = await sql(
        dsn384, "SELECT count(DISTINCT (learner_name, arm_id)), count(*) FROM learning_arm_states"
    )
    assert (report.arm_names, names[1]) == (names[0], sum(row[2] for row in sums))
    assert report.arm_names < names[1]
    for learner, context, arms, pulls, reward in sums:
        panel = panels[learner, context]
        assert (panel.context.arms, panel.context.pulls) == (arms, pulls)
        assert panel.context.reward == pytest.approx(reward)
    for context in CONTEXTS:
        (panel,) = [one for one in report.panels if one.context.readable == _json(context)]
        states = await filled.arms.get_all("prompts", context=context)
        beliefs = await filled.arms.posteriors("prompts", context=context)
        top = sorted(beliefs, key=lambda arm: (-beliefs[arm].low, arm))[:8]
        assert [(arm, state.alpha) for arm, state, _ in panel.arms] == [
            (arm, states[arm].alpha) for arm in top
        ]
        assert all(belief == beliefs[arm] for arm, _, belief in panel.arms)
        assert panel.pulls is not None
        assert panel.pulls.recorded
        for arm, bins in panel.pulls.by_arm.items():
            named = [arm] if arm else [a for a in beliefs if a not in top]
            assert sum(bins) == sum(beliefs[a].pulls for a in named)

    bins = await sql(
        dsn384,
        "SELECT round((weight - 0.1) / 0.05)::int, count(*) FROM interoception_factors GROUP BY 1",
    )
    assert report.factor_bins == dict(bins)
    assert report.boosted == await sql(
        dsn384,
        "SELECT node_id, weight FROM interoception_factors ORDER BY 2 DESC, 1 LIMIT 5",
    )
    assert report.penalised == await sql(
        dsn384, "SELECT node_id, weight FROM interoception_factors ORDER BY 2, 1 LIMIT 5"
    )
    edges = await filled.edges.load()
    hits: Counter[tuple[int, bool]] = Counter(
        (min(one.hit_count, 20), one.hit_count >= 3 and one.avg_score >= 0.75)
        for one in edges.values()
    )
    assert {
        (count, bool(ready)): number
        for count, numbers in report.edge_hits.items()
        for ready, number in enumerate(numbers)
        if number
    } == hits
    lacking = sorted(
        edges.items(),
        key=lambda it: (
            max(3 - it[1].hit_count, 0),
            max(0.75 - it[1].avg_score, 0.0),
            -it[1].hit_count,
            -it[1].avg_score,
            it[0],
        ),
    )
    assert [(one.src_id, one.tgt_id) for one in report.nearest] == [key for key, _ in lacking[:10]]


def _json(context: dict[str, str]) -> str:
    # As jsonb prints it: shorter keys first.
    keys = sorted(context, key=len)
    return "{" + ", ".join(f'"{key}": "{context[key]}"' for key in keys) + "}"


async def test_the_page_says_its_numbers_in_tables_and_asks_for_nothing(filled: Database) -> None:
    report = await read(filled)
    html = page(report, facts={"schema": "qortex_db_0009 (current)"})
    parsed = Page(html)
    for panel in report.panels:
        for arm, state, belief in panel.arms:
            assert arm in parsed.texts
            assert f"{belief.low:.3f} \N{EN DASH} {belief.high:.3f}" in parsed.texts
            assert f"{state.pulls:,}" in parsed.texts
    assert "qortex_db_0009 (current)" in parsed.texts
    assert f"{report.factors.count:,}" in parsed.texts
    assert '{"task": "sql"}' in parsed.texts
    assert parsed.count["h1"] == 1
    assert parsed.count["script"] == 0
    assert re.findall(r"https?://|url\(|@import|javascript:", html) == []
    assert {name for _, name, _ in parsed.attributes} & {"src", "href", "style"} == set()
    assert not [name for _, name, _ in parsed.attributes if name.startswith("on")]
    ids = [value for _, name, value in parsed.attributes if name == "id"]
    assert len(ids) == len(set(ids)) == 2 * parsed.count["desc"]
    pictures = [tag for tag, name, _ in parsed.attributes if (tag, name) == ("svg", "role")]
    assert parsed.count["title"] >= len(pictures) + 1
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    assert (await filled.vectors.get(["gzip.compress"]))["gzip.compress"].document not in html


async def test_an_arm_of_one_pull_does_not_lead(db: Database) -> None:
    await db.arms.put("l", "sure", ArmState(70.0, 30.0, 98))
    for number in range(100):
        await db.arms.put("l", f"lucky{number:02}", ArmState(4.0, 1.0, 1))
    (panel,) = (await read(db)).panels
    assert [arm for arm, _, _ in panel.arms][:2] == ["sure", "lucky00"]
    assert len(panel.arms) == 8


@pytest.mark.parametrize("spread", [1e-1, 1e-3, 1e-5])
def test_beliefs_fill_their_axis_however_narrow_they_are(spread: float) -> None:
    beliefs = [
        Posterior(mean, spread**2, low=mean - spread, high=mean + spread, pulls=1)
        for mean in (0.5, 0.5 + spread)
    ]
    on = figures.scale(beliefs)
    assert on.low < 0.5 - spread
    assert on.high - on.low < 5 * spread
    assert 2 <= len(on.ticks) <= 6
    labels = {f"{at:.{on.digits}f}" for at in on.ticks}
    assert len(labels) == len(on.ticks)


async def test_a_name_is_never_markup(db: Database) -> None:
    name = HOSTILE
    await db.arms.observe(name, name, reward=1.0)
    await db.arms.observe(name, name, reward=1.0, context={name: name})
    await db.factors.save({name: 2.0})
    await db.edges.record(name, "b" + name, score=0.9)
    html = page(await read(db), facts={name: name})
    parsed = Page(html)
    assert parsed.count["script"] == parsed.count["img"] == 0
    assert parsed.count["style"] == 1
    assert "\u202e" not in html
    assert "\x1b" not in html
    assert parsed.text.count("<script>alert('x')</script>") >= 6


async def test_a_long_name_is_cut(db: Database) -> None:
    await db.factors.save({"x" * 1_000: 2.0})
    assert "x" * 119 + "…" in page(await read(db))


async def test_an_empty_database_gives_a_page_that_says_so(db: Database, empty_dsn: str) -> None:
    text = Page(page(await read(db))).text
    assert "No learner has an arm yet." in text
    assert "each weighs 1.0" in text
    assert "The buffer is empty" in text
    async with Database.connect(empty_dsn) as bare:
        with pytest.raises(SchemaVersionError):
            await read(bare)


async def test_without_a_history_the_page_says_what_it_shows_instead(db: Database) -> None:
    await db.arms.observe_many("l", [("a", 1.0), ("b", 0.0), ("a", 1.0)])
    report = await read(db)
    (panel,) = report.panels
    assert panel.pulls is not None
    assert not panel.pulls.recorded
    assert {arm: sum(bins) for arm, bins in panel.pulls.by_arm.items()} == {"a": 2, "b": 1}
    text = Page(page(report)).text
    assert "by when their arm last changed" in text
    assert "There is no history" in text


async def test_a_history_that_lacks_pulls_is_told(db: Database, dsn: str) -> None:
    await db.arms.observe_many("l", [("a", 1.0)] * 5)
    async with Database.connect(Settings(dsn=dsn, learning_history=True)) as recording:
        await recording.arms.observe_many("l", [("a", 1.0)] * 2)
    assert "The history has 2 pulls, the arms 7." in page(await read(db))


async def test_only_the_learners_asked_for_are_shown(db: Database) -> None:
    for learner in ("one", "two", "three"):
        await db.arms.observe(learner, "a", reward=1.0)
    report = await read(db, learners=["two", "one"])
    assert {panel.context.learner for panel in report.panels} == {"one", "two"}
    report = await read(db, learners=["none"])
    assert "These learners have no arms." in page(report)
    with pytest.raises(InvalidInputError, match="learners"):
        await read(db, learners="two")


async def test_values_of_every_kind_are_drawn(db: Database, dsn: str) -> None:
    shapes = [
        (0.001, 0.05),
        (1e-300, 1e-300),
        (0.01, 0.01),
        (0.01, 5.0),
        (1.0, 1.0),
        (1e9, 1e3),
        (3e6, 3e6),
    ]
    for place, (alpha, beta) in enumerate(shapes):
        await db.arms.put("l", f"arm{place}", ArmState(alpha, beta, 1))
    await db.arms.put("l", "timeless", ArmState(1.0, 1.0, 1))
    await execute(
        dsn, "UPDATE learning_arm_states SET last_updated = 'infinity' WHERE arm_id = 'timeless'"
    )
    await db.factors.save({"low": 0.0, "high": 1e90, "neutral": 1.0, "negative": -3.0})
    report = await read(db)
    assert report.factor_bins == {0: 2, 18: 1, 98: 1}
    html = page(report)
    Page(html)
    assert not re.search(r"\b(nan|inf)\b|\d{30}", html)
    for circle in re.findall(r'cx="(.*?)"', html):
        assert 0 <= float(circle) <= 300


@pytest.mark.slow
async def test_a_large_database_takes_no_more_statements_and_a_page_of_bounded_size(
    dsn: str,
) -> None:
    async with counted(dsn) as trips:
        settings = Settings(dsn=trips.dsn, pool_min_size=1, pool_max_size=1)
        async with Database.connect(settings) as db:
            await db.arms.observe("l", "a", reward=1.0)
            await read(db)  # prepares the statements
            before = trips.count
            await read(db)
            small = trips.count - before
            await execute(dsn, LARGE)
            before = trips.count
            report = await read(db)
            assert trips.count - before == small
    assert small < 30
    assert report.contexts == 1_001
    assert len(report.panels) == 12
    assert sum(report.factor_bins.values()) == 100_000
    assert sum(map(sum, report.edge_hits.values())) == 100_000
    assert len(page(report)) < 600_000


async def test_the_figures_are_of_one_moment(db: Database, dsn: str) -> None:
    stop = asyncio.Event()

    async def write() -> None:
        async with Database.connect(dsn) as other:
            number = 0
            while not stop.is_set():
                number += 1
                async with other.unit_of_work() as uow:
                    await uow.arms.observe("l", "a", reward=1.0)
                    await uow.factors.save({f"n{number:06}": 1.0})
                    await uow.edges.record("a", f"n{number:06}", score=0.1)

    writer = asyncio.create_task(write())
    seen: set[int] = set()
    for _ in range(20):
        report = await read(db)
        seen.add(report.factors.count)
        assert report.factors.count == sum(report.factor_bins.values()) == report.edges.count
        assert sum(panel.context.pulls for panel in report.panels) == report.edges.count
    stop.set()
    await writer
    assert len(seen) > 1


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0.41, 0.47, [0.42, 0.44, 0.46]), (0, 7, [0, 2, 4, 6])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert figures.ticks(low, high, 5) == pytest.approx(expected)


def test_an_axis_tells_large_numbers_shortly() -> None:
    assert [figures.short(at) for at in (0, 950, 1_500, 2e6, 3e9)] == [
        "0",
        "950",
        "1.5k",
        "2M",
        "3bn",
    ]


async def test_a_report_ends_in_time(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "REPORT_SECONDS", 0.2)
    async with db.engine.begin() as held:
        await held.exec_driver_sql("LOCK TABLE interoception_edge_buffer")
        with pytest.raises(QueryTimeoutError):
            await read(db)
    monkeypatch.undo()
    assert await read(db)


async def test_the_page_tells_when_it_was_taken(db: Database) -> None:
    report: Report = await read(db)
    assert abs((datetime.now(UTC) - report.taken_at).total_seconds()) < 60
    assert f"{report.taken_at:%d %B %Y, %H:%M} UTC" in page(report)
