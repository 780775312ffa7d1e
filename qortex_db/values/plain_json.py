"""The values that JSON has itself: how large they are, and how json's own encoder writes them."""

from __future__ import annotations

from json.encoder import JSONEncoder
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qortex_db.checks import no_text
from qortex_db.limits import DEEPEST

if TYPE_CHECKING:
    from qortex_db.limits import Limits

CONTAINERS: Final = frozenset({dict, list, tuple})
_PLAIN: Final = CONTAINERS | {str, int, float, bool, type(None)}
_SCALARS: Final = frozenset({int, float, bool, type(None)})
_LISTED: Final = CONTAINERS | {set, frozenset}  # the latter in filters
_FEW: Final = 64
_SHORT: Final = 500
_LARGE: Final = 2**16  # the size, as JSON, of a value that takes a millisecond or two
_encode: Final = JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")
).encode


def plain_json(value: object, *, name: str, limits: Limits) -> str | None:
    """JSON of a container by json's own encoder; None where that could say another thing.

    Raises:
        LimitExceededError: It is too much.
    """
    kind = type(value)
    if kind not in CONTAINERS or not _is_plain(value, name, limits):
        return None
    try:
        text = _encode(value)
    except (ValueError, RecursionError):  # NaN, or a number of more digits than Python writes
        return None
    # A NUL, or a backslash before its escape; a lone surrogate.
    return None if "\\u0000" in text or no_text(text) else text


def _is_plain(value: Any, name: str, limits: Limits) -> bool:
    """Whether json's encoder says the same of it, by a walk from level to level."""
    size = 0
    level: list[Any] = [value]
    for _ in range(limits.max_payload_depth):
        below: list[Any] = []
        for one in level:
            items = one
            size += 2 * len(one)
            if type(one) is dict:
                if not _has_plain_keys(one, limits.max_key_bytes // 4):
                    return False
                size += sum(map(len, one))
                items = one.values()
            kinds = set(map(type, items))
            if not kinds <= _PLAIN:
                return False
            if str in kinds:
                size += sum([len(item) for item in items if type(item) is str])
            if kinds & CONTAINERS:
                below += [item for item in items if type(item) in CONTAINERS]
        limits.check("max_payload_bytes", size, name)
        if not below:
            return True
        level = below
    return False  # too deep


def _has_plain_keys(value: dict[Any, Any], longest: int) -> bool:
    return not value or (set(map(type, value)) == {str} and max(map(len, value)) <= longest)


def is_large(value: object) -> bool:
    """Whether writing it, or reading a filter of it, would hold up an event loop."""
    if type(value) is dict and len(value) < _FEW:
        for item in value.values():
            if not (type(item) in _SCALARS or (type(item) is str and len(item) < _SHORT)):
                break
        else:  # as most are
            return False
    return is_larger(value, _LARGE)


def is_larger(value: object, size: int) -> bool:
    """Whether a value takes more than so many bytes as JSON, by a walk that ends when it does."""
    level: list[Any] = [value]
    for _ in range(DEEPEST + 1):  # what is deeper, or in itself, is refused for that
        below: list[Any] = []
        for one in level:
            kind = type(one)
            if kind is str:
                size -= len(one)
            elif kind is dict:
                size -= 2 * len(one) + sum([len(key) for key in one if type(key) is str])
                below += one.values()
            elif kind in _LISTED:
                size -= 2 * len(one)
                below += one
            elif kind is np.ndarray:  # of numbers, or of what takes no less
                size -= 8 * one.size
            if size < 0:
                return True
        level = below
        if not level:
            break
    return False
