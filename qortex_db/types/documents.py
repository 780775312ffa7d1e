"""JSON as text, which the driver reads in C."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy.types import UserDefinedType

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Dialect


class JsonText(UserDefinedType[Any]):
    """JSON that was cast to text, which the driver reads in C, before it is parsed."""

    cache_ok = True

    def result_processor(
        self,
        dialect: Dialect,  # noqa: ARG002
        coltype: object,  # noqa: ARG002
    ) -> Callable[[Any], Any]:
        return _from_json


def _from_json(text: str | None) -> Any:
    return {} if text == "{}" else None if text is None else json.loads(text)
