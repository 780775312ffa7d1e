"""What the doctor found, by its checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qortex_db.doctor import Finding


def said(found: list[Finding], check: str, *levels: str) -> str:
    """What one check says, with what to do."""
    of_it = [one for one in found if one.check == check and (not levels or one.level in levels)]
    assert of_it, found
    return " ".join(f"{one.said} {one.do}" for one in of_it)


def levels(found: list[Finding]) -> dict[str, str]:
    return {one.check: one.level for one in found}
