"""What a context of arms may say, and by which key: in the repositories, and in qortex's stores."""

from __future__ import annotations

import hashlib
import json
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import pytest

from qortex_db import (
    Database,
    InvalidContextError,
    InvalidInputError,
    Learner,
    PostgresLearningStore,
    QortexDbError,
    context_hash,
)
from qortex_db.testing.factories import (
    ArmFactory,
    ArmOutcomeFactory,
    ArmStateFactory,
    LearnerConfigFactory,
)
from qortex_db.values.jsonable import to_canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

UNSAYABLE: dict[str, Any] = {
    "a number as key": {1: 2},
    "None as key": {None: 2},
    "a bool as key": {True: 2},
    "keys of two types": {1: 2, "1": 3},
    "NaN": {"a": float("nan")},
    "infinity": {"a": [float("inf")]},
    "a lone surrogate": {"a": "\ud800"},
    "a lone surrogate in a key": {"\udfff": 1},
    "bytes": {"a": b"x"},
    "a set": {"a": {1}},
    "a generator": {"a": (n for n in ())},
    "an object": {"a": object()},
    "a text": "x",
    "a list": [("a", 1)],
    "a number": 7,
}
deep: dict[str, Any] = {}
for _ in range(10_000):
    deep = {"a": deep}
UNSAYABLE["10,000 deep"] = deep
SAYABLE: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = [
    ({"a": np.int64(1), "b": np.True_}, {"b": True, "a": 1}),
    ({"a": UUID(int=1)}, {"a": str(UUID(int=1))}),
    ({"a": date(2025, 1, 31)}, {"a": "2025-01-31"}),
    ({"a": ("é", None, 1.5)}, {"a": ["é", None, 1.5]}),
]
CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "get": lambda arms, c: arms.get("l", "a", context=c),
    "get_all": lambda arms, c: arms.get_all("l", context=c),
    "get_all of some": lambda arms, c: arms.get_all("l", ["a"], context=c),
    "put": lambda arms, c: arms.put("l", "a", ArmStateFactory.build(), context=c),
    "observe": lambda arms, c: arms.observe("l", "a", reward=1.0, context=c),
    "observe_many": lambda arms, c: arms.observe_many("l", [("a", 1.0)], context=c),
    "apply_deltas": lambda arms, c: arms.apply_deltas("l", {"a": (1.0, 0.0)}, context=c),
    "decay": lambda arms, c: arms.decay("l", context=c),
    "seed": lambda arms, c: arms.seed("l", ["a"], context=c),
    "reset": lambda arms, c: arms.reset("l", context=c),
    "delete": lambda arms, c: arms.delete("l", context=c),
    "select": lambda arms, c: arms.select("l", ["a"], context=c),
    "top": lambda arms, c: arms.top("l", context=c),
    "posteriors": lambda arms, c: arms.posteriors("l", context=c),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_context_that_json_cant_say_is_refused(db: Database, name: str) -> None:
    call = CALLS[name]
    for context in UNSAYABLE.values():
        with pytest.raises(InvalidContextError) as caught:
            await call(db.arms, context)
        assert isinstance(caught.value, InvalidInputError)
        assert isinstance(caught.value, TypeError)
        async with db.unit_of_work() as uow:
            with pytest.raises(InvalidContextError):
                await call(uow.arms, context)
    assert await db.arms.contexts("l") == []


async def test_the_refusal_names_the_place(db: Database) -> None:
    with pytest.raises(InvalidContextError, match=r"^context\.a has a key of type int; pass str"):
        await db.arms.get("l", "a", context={"a": {1: 2}})
    with pytest.raises(InvalidContextError, match=r"^context\.a\[1\] is nan, which JSON can't"):
        await db.arms.get("l", "a", context={"a": [1, float("nan")]})


async def test_a_value_of_another_type_is_the_context_of_its_form(db: Database) -> None:
    for given, meant in SAYABLE:
        await db.arms.observe("l", "a", reward=1.0, context=given)
        assert (await db.arms.get("l", "a", context=meant)).pulls == 1
        assert context_hash(meant) in await db.arms.contexts("l")
    await db.arms.observe("d", "a", reward=1.0, context={"a": Decimal("0.10")})
    assert (await db.arms.get("d", "a", context={"a": 0.1})).pulls == 0  # other digits
    assert (await db.arms.get("d", "a", context={"a": Decimal("0.10")})).pulls == 1


async def test_a_context_is_kept_readable_with_all_its_digits(dsn: str) -> None:
    db = Database.connect(dsn)
    db._learning_history = True
    async with db:
        digits = "0.1000000000000000055511151231257827"
        await db.arms.observe("l", "a", reward=1.0, context={"a": Decimal(digits), "b": "é"})
        async with db.engine.connect() as connection:
            rows = await connection.exec_driver_sql("SELECT context::text FROM learning_contexts")
            assert rows.scalar_one() == f'{{"a": {digits}, "b": "é"}}'


# What qortex's `json` says of them is what they are keyed by, whatever JSON says.
OF_QORTEX: list[Any] = [
    {1: 2},
    {None: 2},
    {"a": float("nan")},
    {"a": float("inf")},
    {"a": "\ud800"},
    {"a": "\x00"},
    {"a": (1, 2)},
]


async def test_the_stores_keep_qortexs_bytes(db: Database) -> None:
    store = PostgresLearningStore("l", db)
    learner = Learner(LearnerConfigFactory.build(name="l"), store=db)
    for context in OF_QORTEX:
        state = ArmStateFactory.build(pulled=True)
        await store.put("a", state, context)
        assert (await store.get("a", context)).pulls == 4
        assert list(await store.get_all(context)) == ["a"]
        assert context_hash(context) in await store.get_all_contexts()
        assert (await learner.observe(ArmOutcomeFactory.build(arm_id="a"), context)).pulls == 5
        outcomes = [ArmOutcomeFactory.build(arm_id="a"), ArmOutcomeFactory.build(arm_id="b")]
        assert (await learner.batch_observe(outcomes, context))["a"].pulls == 6
        assert (await learner.decay_arm("a", 0.5, context)).pulls == 6
        assert (await learner.select([ArmFactory.build(id="a")], context)).selected
        assert await learner.top_arms(context)
        assert (await learner.posteriors(context))["a"]["pulls"] == 6
        credit = {"a": {"alpha_delta": 1.0}}
        assert (await learner.apply_credit_deltas(credit, context))["a"].pulls == 7
        assert await store.delete(None, context) == 2
    assert context_hash({1: 2}) == context_hash({"1": 2})
    assert context_hash({"a": float("nan")}) == hashlib.sha256(b'{"a":NaN}').hexdigest()[:16]


async def test_the_stores_refuse_what_qortex_refuses_by_the_same_class(db: Database) -> None:
    store = PostgresLearningStore("l", db)
    learner = Learner(LearnerConfigFactory.build(), store=db)
    circle: dict[str, Any] = {}
    circle["a"] = circle
    refused = [{"a": {1}}, {"a": object()}, {1: 2, "1": 3}, {(1, 2): 3}, circle, "x", [1]]
    try:
        json.dumps(deep)  # as Python 3.14 can
    except RecursionError:
        refused.append(deep)
    for context in refused:
        for call in (
            store.get("a", context),  # type: ignore[arg-type]
            store.get_all(context),  # type: ignore[arg-type]
            store.put("a", ArmStateFactory.build(), context),  # type: ignore[arg-type]
            store.delete(["a"], context),  # type: ignore[arg-type]
            learner.top_arms(context),  # type: ignore[arg-type]
            learner.batch_observe([ArmOutcomeFactory.build()], context),  # type: ignore[arg-type]
        ):
            with pytest.raises(TypeError) as caught:
                await call
            assert isinstance(caught.value, QortexDbError)
    with pytest.raises(TypeError):
        context_hash({"a": {1}})


def test_the_canonical_form_is_that_of_context_hash() -> None:
    context = {"b": [1, 1.5, None, True, "é\u2028"], "a": {"z": 1, "é": 2, "B": 3}}
    text = json.dumps(context, sort_keys=True, separators=(",", ":"))
    assert to_canonical_json(context, name="context") == text
