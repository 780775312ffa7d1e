"""Values of payloads that are the same, as filters have it: 1 and 1.0, but not "1" or True."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

_POSITION: Final = re.compile(r"[+-]?[0-9]+")


def values_at(payload: object, steps: Sequence[str]) -> dict[str, Any]:
    """The values at a path, each element of an array, by what tells them apart; no null."""
    for step in steps:
        if isinstance(payload, Mapping):
            payload = payload.get(step)
        elif isinstance(payload, list) and _POSITION.fullmatch(step):
            place = int(step)
            payload = payload[place] if -len(payload) <= place < len(payload) else None
        else:
            return {}
    found = payload if isinstance(payload, list) else [payload]
    return {json.dumps(_plain(one), sort_keys=True): one for one in found if one is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
