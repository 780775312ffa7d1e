"""Which statements spread tables over Citus's nodes; tests/citus runs them on a cluster."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from qortex_db import Collection, InvalidInputError, Settings, VectorMixin, VectorSpec, migrations


class Base(DeclarativeBase):
    """A host's."""


class Article(VectorMixin, Base):
    __tablename__ = "Articles"
    __collection__ = Collection(VectorSpec(384))


class Mail(VectorMixin, Base):
    __tablename__ = "mails"
    __collection__ = Collection(VectorSpec(384), namespace="tenant", namespace_in_key=True)


class Beside(VectorMixin, Base):
    __tablename__ = "beside"
    __collection__ = Collection(VectorSpec(384), namespace="tenant")


class Twofold(Base):
    __tablename__ = "twofold"
    __collection__ = Collection(VectorSpec(384), id=("a", "b"))

    a: Mapped[int] = mapped_column(primary_key=True)
    b: Mapped[int] = mapped_column(primary_key=True)
    vec: Mapped[Any] = mapped_column(Article.__table__.c.vec.type)


def said(**options: Any) -> list[str]:
    settings = options.pop("settings", Settings(dsn="postgresql://h/d"))
    return migrations.distribution_sql(settings, **options).splitlines()


def test_by_key_each_table_has_a_column_and_arms_lie_beside_their_contexts() -> None:
    found = said(shards=16, collections=[Article])

    assert found[0] == (
        "SELECT create_distributed_table('\"qortex_vectors\"', 'id', shard_count := 16);"
    )
    assert found[-1] == (
        "SELECT create_distributed_table('\"Articles\"', 'id', shard_count := 16);"
    )
    beside = [line for line in found if "colocate_with := '\"learning_arm_states\"'" in line]
    assert [line.split('"')[1] for line in beside] == ["learning_contexts", "learning_events"]
    assert len(found) == 8


def test_by_tenant_a_collection_has_its_namespace_s_column() -> None:
    settings = Settings(dsn="postgresql://h/d", db_schema="q")

    assert said(settings=settings, by="tenant", collections=[Mail]) == [
        "SELECT create_distributed_table('\"q\".\"mails\"', 'tenant', shard_count := 32);"
    ]


def test_by_schema_a_schema_is_on_one_node() -> None:
    settings = Settings(dsn="postgresql://h/d", db_schema="q")

    assert said(settings=settings, by="schema") == ["SELECT citus_schema_distribute('\"q\"');"]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"by": "row"}, "by"),
        ({"shards": 0}, "shards"),
        ({"shards": 1.5}, "shards"),
        ({"by": "schema"}, "QORTEX_DB_SCHEMA"),
        ({"by": "tenant"}, "name the collections"),
        ({"by": "tenant", "collections": [Article]}, "no namespace in its key"),
        ({"by": "tenant", "collections": [Beside]}, "no namespace in its key"),
        ({"collections": [Twofold]}, r"the key \(a, b\)"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], what: str) -> None:
    with pytest.raises(InvalidInputError, match=what):
        said(**options)


async def test_a_server_without_citus_says_so(dsn: str) -> None:
    with pytest.raises(InvalidInputError, match="has no Citus"):
        await migrations.distribute(Settings(dsn=dsn))
