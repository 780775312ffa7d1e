"""A server that refuses rows, and quotes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qortex_db import Database


async def refuse_rows(db: Database) -> None:
    """Have the server refuse each new vector and arm, with its values in what it says."""
    async with db.engine.begin() as connection:
        await connection.exec_driver_sql(
            "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "RAISE EXCEPTION 'not %', NEW USING DETAIL = NEW::text, HINT = NEW::text; END $$"
        )
        for table in ("qortex_vectors", "learning_arm_states"):
            await connection.exec_driver_sql(
                f"CREATE TRIGGER tell BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION tell()"
            )
