"""qortex's learning store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qortex_db.observability import traced
from qortex_db.repositories import ALL_CONTEXTS, validation
from qortex_db.repositories.arms.arguments import qortex_context
from qortex_db.stores.handle import DatabaseHandle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qortex_db.database import Database
    from qortex_db.learning import ArmState
    from qortex_db.repositories.arms.repository import ArmStateLike
    from qortex_db.view import DatabaseView


class PostgresLearningStore:
    """The arms of one learner, with qortex's methods.

    Contexts are keyed by the bytes of `context_hash`, as in qortex: `{1: 2}` is `{"1": 2}`. What
    Python's `json` can't say is an `InvalidContextError`, which is a TypeError.

    Args:
        learner_name: The learner.
        pool: A `Database`, or the DSN of one.

    Raises:
        InvalidInputError: The name was refused, or the pool is neither a `Database` nor a DSN.
    """

    def __init__(self, learner_name: str, pool: Database | DatabaseView | str) -> None:
        self.learner_name = learner_name
        self.handle = DatabaseHandle(pool)

    @traced("learning.pg.get")
    async def get(self, arm_id: str, context: Mapping[str, Any] | None = None) -> ArmState:
        """One arm's state, the prior if it is not stored.

        Raises:
            InvalidInputError: The id was refused.
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: The context is larger than a limit allows.
        """
        return await (await self.handle.open()).arms.get(
            self.learner_name, arm_id, context=qortex_context(context)
        )

    @traced("learning.pg.get_all")
    async def get_all(self, context: Mapping[str, Any] | None = None) -> dict[str, ArmState]:
        """Every stored arm of one context.

        Raises:
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: The context is larger than a limit allows.
        """
        return await (await self.handle.open()).arms.get_all(
            self.learner_name, context=qortex_context(context)
        )

    @traced("learning.pg.put")
    async def put(
        self, arm_id: str, state: ArmStateLike, context: Mapping[str, Any] | None = None
    ) -> None:
        """Overwrite one arm's state; "" as `last_updated` means now.

        Raises:
            InvalidInputError: The id or the state was refused; nothing was stored.
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: The context is larger than a limit allows.
        """
        await (await self.handle.open()).arms.put(
            self.learner_name, arm_id, state, context=qortex_context(context)
        )

    @traced("learning.pg.get_all_contexts")
    async def get_all_contexts(self) -> list[str]:
        """The hashes of the contexts with stored arms."""
        return await (await self.handle.open()).arms.contexts(self.learner_name)

    @traced("learning.pg.get_all_states")
    async def get_all_states(self) -> dict[str, dict[str, ArmState]]:
        """Every stored arm by context hash and arm."""
        return await (await self.handle.open()).arms.get_all_states(self.learner_name)

    @traced("learning.pg.delete")
    async def delete(
        self, arm_ids: Sequence[str] | None = None, context: Mapping[str, Any] | None = None
    ) -> int:
        """Forget arms, by qortex's rule: without both arguments, those of every context.

        Raises:
            InvalidInputError: An id was refused; nothing was forgotten.
            InvalidContextError: The context is nothing that JSON can say.
            LimitExceededError: There are more arms, or a larger context, than a limit allows.
        """
        ids = None if arm_ids is None else validation.check_ids(arm_ids, name="arm_ids")
        if ids is not None and not ids:
            return 0
        everywhere = ids is None and context is None
        return await (await self.handle.open()).arms.delete(
            self.learner_name,
            ids,
            context=ALL_CONTEXTS if everywhere else qortex_context(context),
        )

    async def save(self) -> None:
        """Nothing to do: what was put is stored."""

    async def close(self) -> None:
        """Close a database of its own; a shared one stays open."""
        await self.handle.close()
