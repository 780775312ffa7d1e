"""The option that filters rows."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from qortex_db.cli.shell import fail

Where = Annotated[str | None, typer.Option(help='Only rows that match, as JSON: {"lang": "en"}.')]


def read_where(given: str | None) -> dict[str, Any] | None:
    """The filter of the option."""
    if given is None:
        return None
    try:
        found = json.loads(given)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        fail('--where is no JSON object, such as {"lang": "en"}.', status=2)
    return found
