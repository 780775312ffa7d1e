"""What a caller says that is no value."""

from __future__ import annotations

import enum
from typing import Final


class Clear(enum.Enum):
    """The type of `CLEAR`."""

    CLEAR = "CLEAR"

    def __repr__(self) -> str:
        return "qortex_db.CLEAR"


CLEAR: Final = Clear.CLEAR
"""For an embedding, a document, a further vector or an attribute: NULL is stored in its place,
where None leaves what is there."""


class AllNamespaces(enum.Enum):
    """The type of `ALL_NAMESPACES`."""

    ALL_NAMESPACES = "ALL_NAMESPACES"

    def __repr__(self) -> str:
        return "qortex_db.ALL_NAMESPACES"


ALL_NAMESPACES: Final = AllNamespaces.ALL_NAMESPACES
"""For the namespace of a collection: every tenant's rows, for whoever looks after all of them."""
