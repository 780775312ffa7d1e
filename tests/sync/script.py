"""A script that waits, as mypy sees it and as it runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import assert_type

from sqlalchemy.orm import DeclarativeBase

from qortex_db import Collection, SearchHits, VectorMixin, VectorRecord, VectorSpec
from qortex_db.sync import Database


class Base(DeclarativeBase):
    pass


class Note(VectorMixin, Base):
    __tablename__ = "notes"
    __collection__ = Collection(VectorSpec(8))


def main(dsn: str) -> None:
    with Database.connect(dsn) as db:
        assert_type(db, Database)
        assert_type(db.vectors.upsert([{"id": "a", "embedding": [1.0] * 8}]), int)
        assert_type(db.vectors.search([1.0] * 8, limit=3), SearchHits[str])
        assert_type(db.vectors.stream(), Iterator[VectorRecord[str]])
        assert [record.id for record in db.vectors.stream()] == ["a"]
        assert_type(db.factors.load(), dict[str, float])
        with db.unit_of_work(timeout_seconds=10) as uow:
            assert_type(uow.factors.adjust({"n": "accepted"}), dict[str, float])
            uow.session.flush()
            with uow.options(timeout_seconds=5):
                assert_type(uow.vectors.count(), int)
        assert_type(db.run(lambda uow: uow.vectors.count()), int)
        assert_type(db.run(lambda uow: uow.vectors.count(), idempotency_key="k"), int | None)
        assert_type(db.options(timeout_seconds=5).vectors.count(), int)
        db.status()
        db.collection(Note)
    sys.stdout.write("done\n")


if __name__ == "__main__":
    main(sys.argv[1])
