"""docs/operations/grants.md says what each method has to be granted."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

from support.commands import ROOT
from support.methods import public_methods

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def generator() -> Iterator[Any]:
    sys.path.insert(0, str(ROOT / "docs"))
    import generate_grants  # noqa: PLC0415 - a script's

    yield generate_grants
    sys.path.remove(str(ROOT / "docs"))


def test_the_page_says_what_was_measured(generator: Any, dsn: str) -> None:
    as_role = re.sub(r"//[^@/]*@", f"//{generator.ROLE}@", dsn)
    found = asyncio.run(generator.measure(dsn, as_role))
    assert generator.PAGE.read_text() == generator.render(found)


def test_every_public_method_is_there(generator: Any) -> None:
    page = generator.PAGE.read_text()
    told = {name.rpartition(".")[2] for name in re.findall(r"`(\w+\.\w+)`", page)}
    # It has a statement that can't be measured; parts of statements are no calls.
    apart = {"switch_to", "clause", "distance", "score"}
    assert {method.__name__ for method in public_methods()} - told <= apart
