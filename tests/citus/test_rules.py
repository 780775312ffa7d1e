"""The rules of Citus tell what breaks them; the tests of the page of statements see to all."""

from __future__ import annotations

from typing import Any

import pytest
from citus.rules import broken_rules
from sqlalchemy import bindparam, case, func, select, update
from sqlalchemy.dialects.postgresql import insert

from qortex_db import QortexVector
from qortex_db.migrations.on_citus import one_by_one
from qortex_db.models import InteroceptionFactor, LearningArmState
from qortex_db.repositories.arms import change_statements
from qortex_db.repositories.interoception import edge_statements, factor_statements

_arms: Any = LearningArmState.__table__
_factors: Any = InteroceptionFactor.__table__
_new = insert(_factors).from_select(["node_id"], select(bindparam("key")))


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        (change_statements.remove(in_context=False, listed=True, history=False), "no FOR UPDATE"),
        (edge_statements.record(one=True, once=False), "no parameter in what comes on conflict"),
        (factor_statements.adjust(once=False), "no parameter in what comes on conflict"),
        (
            select(
                select(QortexVector.id)
                .where(QortexVector.id == _factors.c.node_id)
                .limit(1)
                .correlate(_factors)
                .lateral()
            ),
            "no LATERAL over a table",
        ),
        (
            _new.on_conflict_do_update(index_elements=["node_id"], set_={"updated_at": func.now()}),
            "no clock in what comes on conflict",
        ),
        (
            update(_arms).values(last_updated=case((_arms.c.pulls > 0, func.now()))),
            "no clock in a CASE",
        ),
        (update(_arms).values(arm_id="b"), "no update of a key"),
    ],
    ids=["lock", "edges", "factors", "lateral", "clock", "case", "key"],
)
def test_what_breaks_a_rule_is_told(statement: Any, rule: str) -> None:
    assert any(rule in each for each in broken_rules(statement))


def test_constraints_are_altered_one_by_one() -> None:
    said = 'ALTER TABLE "a".t ADD CONSTRAINT x CHECK (a > 0) NOT VALID, ADD CONSTRAINT y CHECK (b)'

    assert one_by_one(said) == [
        'ALTER TABLE "a".t ADD CONSTRAINT x CHECK (a > 0) NOT VALID',
        'ALTER TABLE "a".t ADD CONSTRAINT y CHECK (b)',
    ]
    assert one_by_one("ALTER TABLE t ADD CONSTRAINT x CHECK (a)") == [
        "ALTER TABLE t ADD CONSTRAINT x CHECK (a)"
    ]
