"""What a collection stores encrypted: sealed before it is sent, opened when it was read."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qortex_db.encryption import cipher_of, named
from qortex_db.errors import EncryptionError, InvalidInputError
from qortex_db.filters.fields import ENCRYPTED
from qortex_db.messages import shown
from qortex_db.repositories.vectors.row_shape import RowShape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Table

    from qortex_db.encryption import Cipher, EncryptionKeys
    from qortex_db.repositories.vectors.records import SearchHit, VectorRecord
    from qortex_db.repositories.vectors.written_columns import WrittenColumn


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

    def opened(self, row: Sequence[Any], key: str) -> list[Any]:
        """A row whose third and fourth values are its payload and document, decrypted."""
        values = [*row]
        payload, document = values[2:4]
        if payload:
            found = [name for name in self.names if name in payload]
            if found:
                clear = {name: self._open(name, payload[name], key) for name in found}
                values[2] = {**payload, **clear}
        if self.has_document and document is not None:
            values[3] = self._open(None, document, key)
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

    def _open(self, name: str | None, stored: object, key: str) -> Any:
        try:
            return self.cipher.decrypt(stored, name)
        except EncryptionError as error:
            raise named(error, key, name) from None


class DecryptedShape(RowShape):
    """Rows as they are read, with what is encrypted in clear."""

    def __init__(self, table: Table, encrypted: EncryptedColumns) -> None:
        super().__init__(table)
        self._encrypted = encrypted

    def record(self, row: Sequence[Any], *, with_embedding: bool = True) -> VectorRecord:
        """A row of `of_record`; what comes after is left alone."""
        opened = self._encrypted.opened(row, row[0])
        return super().record(opened, with_embedding=with_embedding)

    def hit(self, row: Sequence[Any], score: float) -> SearchHit:
        """A row of id, distance and `of_hit`, with its score."""
        return super().hit(self._encrypted.opened(row, row[0]), score)
