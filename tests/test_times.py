"""Times that a call returns: made strings when they are looked at, and nobody can tell."""

from __future__ import annotations

import copy
import pickle
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from qortex_db import ArmState, EdgeStats

TIME: Any = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)  # as repositories give it
TEXT = "2026-01-02T03:04:05.000678+00:00"


@pytest.mark.parametrize(
    ("kind", "name", "rest"),
    [(ArmState, "last_updated", (1.5, 2.0, 3, 0.5)), (EdgeStats, "last_seen", (3, [0.5]))],
)
def test_a_time_that_was_not_looked_at_is_as_its_string(
    kind: Any, name: str, rest: tuple[Any, ...]
) -> None:
    right = kind(*rest, TEXT)
    assert fields(right)[-1].name == name
    for use in (
        lambda one: one,
        copy.copy,
        copy.deepcopy,
        replace,
        lambda one: pickle.loads(pickle.dumps(one)),  # noqa: S301 - its own
        lambda one: kind(**asdict(one)),
    ):
        used = use(kind(*rest, TIME))
        assert (used, repr(used), asdict(used)) == (right, repr(right), asdict(right))
    read = kind(*rest, TIME)
    assert getattr(read, name) == TEXT
    assert getattr(read, name) is getattr(read, name)
    setattr(read, name, "")
    assert getattr(read, name) == "" == getattr(kind(), name)
    with pytest.raises(TypeError, match="unhashable"):
        hash(read)


def test_arms_are_told_as_json() -> None:
    assert ArmState(1.5, 2.0, 3, 0.5, TIME).to_dict()["last_updated"] == TEXT
    assert ArmState.from_dict(ArmState(last_updated=TEXT).to_dict()) == ArmState(last_updated=TEXT)
