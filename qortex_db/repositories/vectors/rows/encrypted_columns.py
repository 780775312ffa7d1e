"""What a collection stores encrypted: sealed before it is sent, opened when it was read."""

from __future__ import annotations

import asyncio
import functools
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from qortex_db.encryption import cipher_of, named
from qortex_db.errors import EncryptionError, InvalidInputError
from qortex_db.filters.fields import ENCRYPTED
from qortex_db.messages import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Table

    from qortex_db.encryption import Cipher, EncryptionKeys
    from qortex_db.repositories.vectors.rows.written_columns import WrittenColumn

_TOKEN: Final = 800
"""The bytes whose decryption takes as long as a token does besides its own: 5 µs."""
_LONG: Final = 2**18
"""The bytes whose decryption takes one or two milliseconds."""


class EncryptedColumns:
    """The keys of a table's payloads that are encrypted, and whether its documents are.

    Args:
        table: Of a collection that has some.
        keys: Looked up by each use, so that a collection can be counted without any.
    """

    def __init__(self, table: Table, keys: EncryptionKeys | None) -> None:
        names: frozenset[str | None] = table.info[ENCRYPTED]
        self.names = sorted(name for name in names if name is not None)
        self.has_document = None in names
        self._keys = keys

    @property
    def cipher(self) -> Cipher:
        """By the keys of now.

        Raises:
            EncryptionError: There are none, or no such keys.
        """
        return cipher_of(self._keys)

    def written(self, columns: Mapping[str, WrittenColumn]) -> dict[str, WrittenColumn]:
        """The columns, with what is sent of them sealed."""
        sealed = dict(columns)
        if self.names:
            sealed["payload"] = replace(columns["payload"], seal=self._seal_payload)
        if self.has_document:
            seal = functools.partial(self._seal, None)
            sealed["document"] = replace(columns["document"], seal=seal)
        return sealed

    def sealed(self, key: str, value: Any) -> Any:
        """A value at a payload's key as it is stored."""
        return self._seal(key, value) if key in self.names else value

    def check_whole(self, steps: Sequence[str]) -> None:
        """Refuse a change inside an encrypted value.

        Raises:
            InvalidInputError: It is one.
        """
        if len(steps) > 1 and steps[0] in self.names:
            raise InvalidInputError(
                f"payload[{shown(steps[0])}] is stored encrypted and can only be changed as a "
                "whole: name it by its key alone."
            )

    async def opened(self, rows: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
        """Rows of an id, then another value, a payload and a document, with these decrypted.

        Raises:
            EncryptionError: One can't be: its row and its key are named.
        """
        if sum(map(self._work, rows)) > _LONG:  # an event loop would be held up
            return await asyncio.to_thread(self._opened, rows)
        return self._opened(rows)

    def _work(self, row: Sequence[Any]) -> int:
        """How long decrypting a row takes, in what a byte does."""
        payload, document = row[2:4]
        stored = [payload[name] for name in self.names if name in payload] if payload else []
        if self.has_document:
            stored.append(document)
        return sum(_TOKEN + len(token) for token in stored if isinstance(token, str))

    def _opened(self, rows: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
        cipher = functools.cache(lambda: self.cipher)
        return [self._opened_row(row, cipher) for row in rows]

    def _opened_row(self, row: Sequence[Any], cipher: Callable[[], Cipher]) -> Sequence[Any]:
        values = [*row]
        key, _, payload, document = row[:4]
        if payload:
            found = [name for name in self.names if name in payload]
            if found:
                clear = {name: _open(name, payload[name], key, cipher) for name in found}
                values[2] = {**payload, **clear}
        if self.has_document and document is not None:
            values[3] = _open(None, document, key, cipher)
        return values

    def _seal(self, name: str | None, value: Any) -> str:
        return self.cipher.encrypt(value, name)

    def _seal_payload(self, text: str) -> str:
        payload = json.loads(text)
        found = {name: payload[name] for name in self.names if name in payload}
        if not found:
            return text
        cipher = self.cipher
        sealed = {name: cipher.encrypt(value, name) for name, value in found.items()}
        return json.dumps(payload | sealed, ensure_ascii=False)


def _open(name: str | None, stored: object, key: str, cipher: Callable[[], Cipher]) -> Any:
    try:
        return cipher().decrypt(stored, name)
    except EncryptionError as error:
        raise named(error, key, name) from None
