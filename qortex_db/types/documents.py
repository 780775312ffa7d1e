"""JSON as text, which the driver reads in C."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.types import UserDefinedType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Dialect

_AT_ONCE: Final = 500


_scan: Final[Callable[[str, int], tuple[Any, int]]] = vars(json.JSONDecoder())["scan_once"]
"""What json.loads does, without looking for blanks around a value: half its time for most."""


class JsonText(UserDefinedType[Any]):
    """JSON that was cast to text, which the driver reads in C, before it is parsed."""

    cache_ok = True

    def result_processor(
        self,
        dialect: Dialect,  # noqa: ARG002
        coltype: object,  # noqa: ARG002
    ) -> Callable[[Any], Any]:
        return _from_json


def read_json(texts: Sequence[str | None]) -> list[Any]:
    """Several values of JSON that the server sent; None where there is none.

    Reading one after the other takes three times as long.
    """
    values: list[Any] = []
    for start in range(0, len(texts), _AT_ONCE):
        some = [text or "null" for text in texts[start : start + _AT_ONCE]]
        values += json.loads(f"[{','.join(some)}]")
    return values


def _from_json(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return _scan(text, 0)[0]
    except StopIteration:  # a column of type json keeps the blanks before a value
        return json.loads(text)
