"""Regular expressions: the subset means what it does in Python, and fits whatever is in it."""

from __future__ import annotations

import random
import re
from contextlib import suppress

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from qortex_db import InvalidInputError, Settings
from qortex_db.filters.regex import read_regex

ATOMS = [
    *"abAé.^$0_ \n𝄞=",
    r"\.",
    r"\d",
    r"\w",
    r"\s",
    r"\D",
    r"\W",
    r"\S",
    "[ab]",
    "[^a]",
    "[a-z]",
]
ATOMS += [
    r"[^\d\n]",
    r"[\W]",
    "[-a]",
    "[a-]",
    r"\A",
    r"\Z",
    r"\b",
    r"[\]\-]",
    "/",
    r"\*",
    r"\n",
    r"\\",
]
PLACES = ("^", "$", r"\A", r"\Z", r"\b")
QUANTIFIERS = [
    "",
    "",
    "",
    "*",
    "+",
    "?",
    "{2}",
    "{1,2}",
    "{0,1}",
    "{,2}",
    "{2,}",
    "*?",
    "+?",
    "{0}",
]
TEXTS = [
    "",
    "a",
    "b",
    "ab",
    "ba",
    "aa\n",
    "\n",
    "a\n",
    "é",
    "É",
    "aé b",
    "A",
    "Ab_1",
    "𝄞a",
    " ",
    "a b",
    "=",
]
TEXTS += [
    "1 a",
    "\n\n",
    "a/.b",
    "K",
    "İ",
    "ß",
    "a-]",
    "abab\nba",
    "00",
    "\\",
    "*",
    "\u2028",
    "²",
    "a" * 300,
]


def expression(draw: random.Random, depth: int = 0) -> str:
    parts = []
    for _ in range(draw.randint(1, 3)):
        part = draw.choice(ATOMS)
        if depth < 3 and draw.random() < 0.2:
            part = f"{draw.choice(['(', '(?:'])}{expression(draw, depth + 1)})"
        parts.append(part if part in PLACES else part + draw.choice(QUANTIFIERS))
    found = "".join(parts)
    if draw.random() < 0.25:
        found += "|" + (expression(draw, depth + 1) if draw.random() < 0.8 else "")
    return found


# The largest that are taken, of each kind that the server takes long to compile.
LARGEST = [
    "".join(f"[{chr(0x400 + i % 10)}-{chr(0x500 + i % 10)}]?" for i in range(95)) + "x",
    "(?:" + "".join(f"[{chr(0x400 + i)}-{chr(0x500 + i)}]?" for i in range(10)) + "){10}",
    "".join(f"[^{chr(97 + i % 10)}]*" for i in range(98)) + "x",
    "(?:" + "|".join(f"[^{chr(97 + i % 10)}]" for i in range(99)) + ")*x",
    r"(?:\b[^a]?){8}",
    "|".join(f"{chr(97 + i % 26)}*$" for i in range(30)),
    "(?:(?:[^a]|[^b]|[^c]|[^d]|[^e]|[^f]|[^g]|[^h]|[^i])){100}x",
    "(a|b)*a(a|b){90}",
    "(?:.*){95}y",
    "a" * 1000,
    "|".join(f"abcdefgh{i}" for i in range(99)),
    "(?:(?:(?:(?:(?:(?:(?:(?:(?:(?:a|)b|)c|)d|)e|)f|)g|)h|)i|)j|)$",
]


async def test_an_expression_means_what_python_has_it_mean(empty_dsn: str) -> None:
    target = Settings(dsn=empty_dsn).target()
    assert target is not None
    engine = create_async_engine(target.url, connect_args=dict(target.connect_args))
    statement = text(
        'SELECT each COLLATE "C" ~ pattern, pattern FROM unnest(CAST(:texts AS text[])) WITH '
        "ORDINALITY AS t(each, number), unnest(CAST(:patterns AS text[])) WITH ORDINALITY AS "
        "p(pattern, place) ORDER BY place, number"
    )
    draw = random.Random(7)  # noqa: S311 - no secret
    patterns = [expression(draw) for _ in range(700)]
    patterns += [f"(?i){pattern}" for pattern in patterns[:150]]
    read = {}
    for pattern in patterns:
        with suppress(InvalidInputError):  # it is too large
            read[pattern] = read_regex(pattern, "x")
    assert len(read) > 700
    async with engine.connect() as connection:
        for pattern, regex in read.items():
            params = {"texts": TEXTS, "patterns": [regex.sql]}
            rows = (await connection.execute(statement, params)).all()
            expected = [re.search(pattern, each, re.ASCII) is not None for each in TEXTS]
            assert [row[0] for row in rows] == expected, (pattern, regex.sql)
            for each, is_found in zip(TEXTS, expected, strict=True):
                assert each.startswith(regex.prefix) or not is_found, pattern
        await connection.execute(text("SET statement_timeout = '20s'"))
        for pattern in LARGEST:  # that Python would not match in a lifetime
            params = {"texts": ["ab c1." * 20_000], "patterns": [read_regex(pattern, "x").sql]}
            await connection.execute(statement, params)
    await engine.dispose()


@pytest.mark.parametrize(
    ("pattern", "place", "says"),
    [
        ("a(b", 2, "not closed"),
        ("a)b", 2, "none opened"),
        ("a]", 2, "none opened"),
        ("a}", 2, "none opened"),
        ("[]a]", 1, "empty or not closed"),
        ("[ab", 1, "not closed"),
        ("[b-a]", 2, "without a beginning and an end"),
        (r"[\d-a]", 2, "without a beginning"),
        ("[a-c-e]", 5, "inside of a class"),
        ("[a[b]", 3, "inside of a class"),
        ("*a", 1, "a quantifier of nothing"),
        ("a**", 3, "a quantifier of a quantifier"),
        ("a*+", 3, "a quantifier of a quantifier"),
        ("^*", 2, "a quantifier of a place"),
        ("a{101}", 2, "from 0 to 100"),
        ("a{3,2}", 2, "from 0 to 100"),
        ("a{99999999999999999999}", 2, "from 0 to 100"),
        ("a{x}", 2, "a brace that is no quantifier"),
        ("a{,}{2}", 5, "a quantifier of a quantifier"),
        (r"(a)\1", 4, "an escape that is not taken"),
        (r"\B", 1, "an escape that is not taken"),
        (r"\x41", 1, "an escape that is not taken"),
        ("a\\", 2, "an escape that is not taken"),
        (r"[\b]", 2, "an escape that is not taken"),
        ("(?=a)", 1, "a group that is not taken"),
        ("(?P<a>a)", 1, "a group that is not taken"),
        ("a(?i)", 2, "a group that is not taken"),
        ("(" * 11 + "a" + ")" * 11, 11, "more than 10 levels"),
        ("|" * 100, 100, "more than 100 alternatives"),
        ("(?:a{100}){100}", 1, "more than fits"),
        ("(?:(?:a*)*)*" * 4, 13, "more than fits"),
        ("".join(f"[a{chr(98 + i)}]" for i in range(11)), 41, "more than 10 different classes"),
        (r"(?:\b){20}", 1, "more than fits"),
    ],
)
def test_what_is_outside_the_subset_is_refused_by_its_position(
    pattern: str, place: int, says: str
) -> None:
    with pytest.raises(InvalidInputError, match=rf"^here has, at character {place}, .*{says}"):
        read_regex(pattern, "here")
