"""Encrypted values written anew by the newest key, batch by batch."""

from __future__ import annotations

import asyncio
import functools
import json
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Integer, bindparam, cast, null, select, update
from sqlalchemy.dialects.postgresql import JSONB

from qortex_db.encryption import Cipher, is_token, named
from qortex_db.engine import on_primary
from qortex_db.errors import ConflictError, EncryptionError
from qortex_db.repositories import validation
from qortex_db.repositories.locking import in_key_order
from qortex_db.repositories.progress import tell
from qortex_db.repositories.statement_cache import MAX_TABLES
from qortex_db.repositories.vectors.rows.records import IdT
from qortex_db.repositories.vectors.table import TableBound
from qortex_db.sql import Text, as_jsonb, as_text, func
from qortex_db.values.keys import key_columns, key_of, key_type

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Select, Table, Update

    from qortex_db.repositories.vectors.rows.encrypted_columns import EncryptedColumns
    from qortex_db.repositories.vectors.rows.namespaces import Scope

MAX_ROTATED: Final = 10_000
"""The most rows of one batch of `rotate_keys`."""
_MAX_TRIES: Final = 100


class VectorRotation(TableBound[IdT]):
    """What writes encrypted values anew."""

    async def rotate_keys(
        self, *, batch_size: int = 500, on_progress: Callable[[int], object] | None = None
    ) -> int:
        """Encrypt by the newest key what is encrypted by another, or not at all.

        By itself each batch is its own transaction: it can be stopped, and run again, and changes
        what is left. What others write meanwhile is never overwritten, and `updated_at` stays.

        Args:
            batch_size: Rows that are read, and locked, at a time, 1 to 10,000.
            on_progress: Called, and awaited if need be, with the rows read so far.

        Returns:
            How many rows were changed; none where the collection has nothing encrypted.

        Raises:
            InvalidInputError: An argument was refused.
            ConflictError: Others change the same rows without end.
            EncryptionError: A row is of none of the keys; the batches before stay done.
        """
        size = validation.check_limit(batch_size, MAX_ROTATED, name="batch_size")
        if on_progress is not None:
            validation.check_callable(on_progress, name="on_progress")
        vectors, encrypted = self._vectors, self._vectors.encrypted
        if encrypted is None:
            return 0
        write = _write(vectors.table, vectors.scope)
        done = changed = tries = 0
        after = vectors.key.least
        while True:
            read = _read(vectors.table, vectors.scope, goes_on=after is not None)
            rows = (await vectors.run(on_primary(read), {"after": after, "hits": size})).rows
            count, changes = await asyncio.to_thread(_changes, rows, encrypted)
            if count:
                written = (await vectors.run(write, {"row_changes": changes})).rowcount
                changed += written
                if written < count:  # somebody else was there first: read those anew
                    tries += 1
                    if tries == _MAX_TRIES:
                        raise ConflictError(
                            "Others change the rows of one batch again and again. Run it again: "
                            "what is done is left alone."
                        )
                    continue
            tries = 0
            done += len(rows)
            if rows:
                await tell(on_progress, done)
            if len(rows) < size:
                return changed
            after = rows[-1][0]


def _changes(rows: Sequence[Sequence[Any]], encrypted: EncryptedColumns) -> tuple[int, str]:
    """How many of some rows change, and how; it takes too long for an event loop."""
    cipher = encrypted.cipher
    found = (_change(row, encrypted, cipher) for row in rows)
    changes = [change for change in found if change is not None]
    return len(changes), json.dumps(changes, ensure_ascii=False)


def _change(row: Sequence[Any], encrypted: EncryptedColumns, cipher: Cipher) -> Any:
    """What a row's payload and document were, and what is to be put in; None for nothing."""
    key, payload, document = row
    stored = {} if payload is None else json.loads(payload)
    sealed = {}
    for name in encrypted.names:
        if name in stored:
            token = _anew(stored[name], cipher, key, name)
            if token != stored[name]:
                sealed[name] = token
    written = document
    if encrypted.has_document and document is not None:
        written = _anew(document, cipher, key, None)
    if not sealed and written == document:
        return None
    return {"id": str(key), "payload": payload, "put": sealed, "document": document, "new": written}


def _anew(stored: object, cipher: Cipher, key: str, name: str | None) -> str:
    """A value's token by the newest key, the same one where it is."""
    if not is_token(stored):
        return cipher.encrypt(stored, name)
    try:
        return cipher.encrypt(cipher.decrypt(stored, name), name)
    except EncryptionError as error:
        raise named(error, key, name) from None


@functools.lru_cache(MAX_TABLES)
def _read(table: Table, scope: Scope, *, goes_on: bool) -> Select[Any]:
    """A page of what is stored, as the server has it: numbers of Python's would not be the same."""
    payload = cast(table.c.payload, Text) if "payload" in table.c else null()
    document = table.c.document if "document" in table.c else null()
    after = [table.c.id > bindparam("after", type_=key_type(table).type)] if goes_on else []
    return (
        select(key_of(table), payload.label("payload"), document.label("document"))
        .where(*after, *scope.clauses)
        .order_by(*key_columns(table))
        .limit(bindparam("hits", type_=Integer))
    )


@functools.lru_cache(MAX_TABLES)
def _write(table: Table, scope: Scope) -> Update:
    """Put tokens into the rows that are still as they were read, in key order."""
    changes = cast(bindparam("row_changes", type_=Text), JSONB)
    change = func.jsonb_array_elements(changes, type_=JSONB()).column_valued("change")
    fields = [change[name].astext.label(name) for name in ("id", "payload", "document", "new")]
    given = select(*fields, change["put"].label("put")).cte("_given").prefix_with("MATERIALIZED")
    key = key_type(table).sql_text(as_text(table.c.id))
    is_same = []
    values: dict[str, Any] = {}
    if "payload" in table.c:
        is_same.append(as_jsonb(table.c.payload).is_not_distinct_from(cast(given.c.payload, JSONB)))
        values["payload"] = as_jsonb(table.c.payload).op("||", return_type=JSONB())(given.c.put)
    if "document" in table.c:
        is_same.append(table.c.document.is_not_distinct_from(given.c.document))
        values["document"] = given.c.new
    is_listed = key.in_(select(given.c.id))
    besides = [key == given.c.id, *is_same, *scope.clauses]
    tokens = update(table).values(values)
    return in_key_order(tokens, [table.c.id], is_listed, *scope.clauses, besides=besides)
