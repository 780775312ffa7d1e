"""Values of payloads, and documents, encrypted one by one, so that equal ones stay equal.

AES-SIV is deterministic: a value that does not change has the token that is stored, so the
statements that leave unchanged rows alone need to know nothing of it.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from qortex_db.errors import EncryptionError
from qortex_db.messages import shown

EncryptionKeys: TypeAlias = Sequence[str | bytes] | Callable[[], Sequence[str | bytes]]
"""Fernet keys, newest first, or what gives them, as from a KMS: it is called whenever they are
needed, so it has to be quick."""

TOKEN: Final = "qortex-siv-1:"  # noqa: S105 - how a token begins
_PURPOSE: Final = b"qortex-db: values of payloads and documents, 1"
_KEY_BYTES: Final = 32
_NO_KEYS: Final = (
    "There is no encryption key: set QORTEX_DB_ENCRYPTION_KEYS, or pass encryption_keys to the "
    "Database or the unit of work."
)


class Cipher:
    """What encrypts by the newest key, and decrypts by any.

    A token is bound to the name of its payload's key: in another's place it is refused.

    Args:
        keys: As `cryptography.fernet.Fernet.generate_key()` makes them, newest first.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        try:
            from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - an optional extra
            from cryptography.hazmat.primitives.ciphers.aead import AESSIV  # noqa: PLC0415
            from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
            from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415
        except ImportError:
            raise EncryptionError(
                'Encryption is not installed. Install it: pip install "qortex-db[encryption]".'
            ) from None
        self._invalid = InvalidTag
        # A key for this purpose alone: the Fernet key may serve another one too.
        self._modes = [
            AESSIV(HKDF(SHA256(), 64, salt=None, info=_PURPOSE).derive(key)) for key in keys
        ]

    def encrypt(self, value: Any, name: str | None) -> str:
        """The token of a JSON value at a payload's key; without a name, of a document."""
        text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        sealed = self._modes[0].encrypt(text.encode(), _bound_to(name))
        return TOKEN + base64.b64encode(sealed).decode()

    def decrypt(self, stored: object, name: str | None) -> Any:
        """The value of a token.

        Raises:
            EncryptionError: It is none, or of none of the keys; the message names no value.
        """
        if not is_token(stored):
            raise EncryptionError(
                "is not encrypted: it was stored before the collection said so, or past this "
                "package; rotate_keys() encrypts it"
            )
        try:
            sealed = base64.b64decode(stored.removeprefix(TOKEN), validate=True)  # type: ignore[attr-defined]
        except (binascii.Error, ValueError):
            sealed = b""
        for mode in self._modes:
            try:
                return json.loads(mode.decrypt(sealed, _bound_to(name)))
            except (self._invalid, ValueError):
                continue
        raise EncryptionError(
            f"is of none of the {len(self._modes)} encryption keys, or was changed or moved past "
            "this package; add the key that it was written with"
        )


def is_token(stored: object) -> bool:
    """Whether a stored value says that it is encrypted."""
    return isinstance(stored, str) and stored.startswith(TOKEN)


def cipher_of(given: EncryptionKeys | None) -> Cipher:
    """What encrypts and decrypts by these keys.

    Raises:
        EncryptionError: There is none, one is no Fernet key, or the extra is not installed.
    """
    found: object = given() if callable(given) else given
    if found is None or isinstance(found, (str, bytes)) or not isinstance(found, Sequence):
        if found is None:
            raise EncryptionError(_NO_KEYS)
        raise EncryptionError(
            f"The encryption keys are a {type(found).__name__}; pass a list of Fernet keys, the "
            "newest first."
        )
    if not found:
        raise EncryptionError(_NO_KEYS)
    return _cipher(tuple(_read_key(key, number) for number, key in enumerate(found, 1)))


_cipher = functools.lru_cache(maxsize=8)(Cipher)  # a KMS may give other ones at any time


def _read_key(key: object, number: int) -> bytes:
    read = b""
    if isinstance(key, (str, bytes)):
        try:
            read = base64.urlsafe_b64decode(key)
        except (binascii.Error, ValueError):  # they may quote it
            read = b""
    if len(read) != _KEY_BYTES:
        raise EncryptionError(
            f"Encryption key {number} is no Fernet key, 32 bytes in URL-safe base64 as "
            "cryptography's Fernet.generate_key() makes them."
        )
    return read


def _bound_to(name: str | None) -> list[bytes]:
    return [b"document"] if name is None else [b"payload", name.encode()]


def named(error: EncryptionError, row: str, name: str | None) -> EncryptionError:
    """An error with the row and the payload's key that it is of."""
    place = "document" if name is None else f"payload[{shown(name)}]"
    message = str(error)
    joint = " " if message[:1].islower() else ": "
    end = "." if message[:1].islower() else ""
    return error.retold(f"{place} of the row {shown(row)}{joint}{message}{end}")
