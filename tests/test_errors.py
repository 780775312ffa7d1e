"""Errors arrive whole, wherever they are sent, and whoever tells them anew."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from qortex_db import DimensionMismatchError, LimitExceededError, QortexDbError, errors
from qortex_db.migrations import AdoptionRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = [
    *(
        kind
        for kind in vars(errors).values()
        if inspect.isclass(kind) and issubclass(kind, QortexDbError)
    ),
    AdoptionRefusedError,
]
WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),  # noqa: S301 - our own
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def made(kind: type[Any]) -> QortexDbError:
    """An error with something in each of its attributes."""
    error = {
        DimensionMismatchError: lambda: DimensionMismatchError("It failed.", expected=8, actual=7),
        LimitExceededError: lambda: LimitExceededError(
            "It failed.", limit="max_key_bytes", allowed=8, actual=9
        ),
        AdoptionRefusedError: lambda: AdoptionRefusedError(["a table", "a column"]),
    }.get(kind, lambda: kind("It failed."))()
    error.sqlstate = "40001"
    error.add_note("in the test")
    assert all(vars(error).values())
    return error


def test_every_error_of_the_package_is_tried() -> None:
    def below(kind: type[Any]) -> set[type[Any]]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    ours = {kind for kind in below(QortexDbError) if kind.__module__.startswith("qortex_db")}
    assert ours == set(KINDS)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_is_copied_and_sent_with_all_that_it_says(kind: type[Any], way: str) -> None:
    error = made(kind)
    there = WAYS[way](error)
    assert there is not error
    assert type(there) is kind
    assert (str(there), there.args, vars(there)) == (str(error), error.args, vars(error))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_is_told_anew_with_another_message_and_the_same_attributes(
    kind: type[Any],
) -> None:
    error = made(kind)
    said, attributes = str(error), dict(vars(error))
    again = error.retold("batch 7: it failed.")
    assert type(again) is kind
    assert (str(again), again.args) == ("batch 7: it failed.", ("batch 7: it failed.",))
    assert vars(again) == attributes
    assert (str(error), vars(error)) == (said, attributes)  # the first says what it said
    assert str(pickle.loads(pickle.dumps(again))) == "batch 7: it failed."  # noqa: S301
