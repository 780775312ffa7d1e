"""Errors arrive whole, wherever they are sent, and whoever tells them anew."""

from __future__ import annotations

import copy
import inspect
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import pytest

from qortex_db import InFailedTransactionError, QortexDbError, errors
from qortex_db.migrations import AdoptionRefusedError
from support.raising import OrderError, fail

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = [
    *(
        kind
        for kind in vars(errors).values()
        if inspect.isclass(kind) and issubclass(kind, QortexDbError)
    ),
    AdoptionRefusedError,
    OrderError,
]
VALUES = {"message": "It failed.", "differences": ["a table", "a column"]}
WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),  # noqa: S301 - our own
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def made(kind: type[Any]) -> QortexDbError:
    """An error with something in each of its attributes."""
    given = {
        name: VALUES.get(name, 7 if "int" in str(parameter.annotation) else "40001")
        for name, parameter in inspect.signature(kind).parameters.items()
    }
    error: QortexDbError = kind(**given)
    error.sqlstate = "40001"
    error.add_note("in the test")
    assert all(vars(error).values())
    assert given.keys() - {"message", "order"} <= vars(error).keys()
    return error


def test_every_error_of_the_package_is_tried() -> None:
    def below(kind: type[Any]) -> set[type[Any]]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    # An adapter's errors are those of its framework, too: they are tried with it.
    ours = {
        kind
        for kind in below(QortexDbError)
        if kind.__module__.startswith("qortex_db")
        and not kind.__module__.startswith("qortex_db.integrations.")
    }
    assert ours == set(KINDS) - {OrderError}


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
    assert again.args == ("batch 7: it failed.",)
    assert vars(again) == attributes
    assert (str(error), vars(error)) == (said, attributes)  # the first says what it said
    assert pickle.loads(pickle.dumps(again)).args == again.args  # noqa: S301


def test_an_error_comes_out_of_a_worker_process_whole() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as workers:
        for kind in KINDS:
            error = made(kind)
            there = workers.submit(fail, error).exception(timeout=60)
            assert type(there) is kind
            assert (str(there), there.args, vars(there)) == (str(error), error.args, vars(error))


@pytest.mark.parametrize("way", WAYS)
def test_the_error_that_it_came_from_is_sent_with_it_where_it_is_of_ours(way: str) -> None:
    error = InFailedTransactionError("It was aborted.")
    error.__cause__ = first = made(OrderError)
    cause = WAYS[way](error).__cause__
    assert (type(cause), str(cause), vars(cause)) == (OrderError, str(first), vars(first))
    error.__cause__ = ValueError(lambda: None)
    assert WAYS[way](error).__cause__ is None
