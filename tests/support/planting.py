"""What a stranger who may create in a schema plants there: better matches of what is called."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_TYPES: Final = (
    "text", "varchar", "name", "smallint", "int", "bigint", "real", "float8", "numeric", "bool",
    "oid", "jsonb", "timestamp", "timestamptz", "interval", "tsvector", "tsquery", "regconfig",
    "regclass", "tid", "record", "text[]", "varchar[]", "int[]",
)  # fmt: skip
_VECTORS: Final = ("vector", "halfvec", "sparsevec")
_FEW: Final = ("text", "varchar", "name", "int", "bigint", "float8", "bool", "jsonb", "tsquery")
_FEWER: Final = ("text", "varchar", "name", "int", "float8")
_OPERATORS: Final = "SELECT DISTINCT oprname FROM pg_operator"
_COUNTS: Final = """
SELECT DISTINCT proname, n FROM pg_proc, generate_series(
    CASE WHEN provariadic <> 0 THEN 1 ELSE pronargs END,
    CASE WHEN provariadic <> 0 THEN 3 ELSE pronargs END) n
WHERE proname = ANY($1) AND n BETWEEN 1 AND 4
"""
_OF: Final = "LEFTARG = {}, RIGHTARG = {}, FUNCTION = {}"
_BODY: Final = "RETURNS bool LANGUAGE plpgsql AS 'BEGIN RAISE ''planted''; END'"
# What is there already, such as pgvector's own in its schema, can't be planted.
_EACH: Final = """
CREATE FUNCTION pg_temp.each(statements text[]) RETURNS int LANGUAGE plpgsql
SET search_path = pg_catalog AS $$
DECLARE
    one text;
    made int := 0;
BEGIN
    FOREACH one IN ARRAY statements LOOP
        BEGIN
            EXECUTE one;
            made := made + 1;
        EXCEPTION WHEN duplicate_function OR invalid_function_definition THEN
        END;
    END LOOP;
    RETURN made;
END $$
"""


async def plant(
    connection: Any, sql: Iterable[str], *, schema: str = "public", extension: str = "public"
) -> int:
    """Plant overloads of every function and operator that some SQL has; return how many.

    Nobody may execute them: a statement that resolves to one fails as it starts, even where it has
    no rows to call it on. To a superuser they raise an error.

    Args:
        connection: Of asyncpg, as the stranger.
        schema: In which the stranger may create.
        extension: The schema of pgvector.
    """
    whole = "\n".join(sql)
    await connection.execute("SET search_path = pg_catalog")
    called = sorted(set(re.findall(r"\b([a-z_][a-z0-9_]*)\(", whole)))
    operators = {row[0] for row in await connection.fetch(_OPERATORS)}
    written = {"=", "<>", "<", ">", "~~", "~~*", *re.findall(r"[-+*/<>=~!@#%^&|`?]+", whole)}
    types = (*_TYPES, *(f"{extension}.{name}" for name in _VECTORS))
    made = [
        f'CREATE FUNCTION {schema}."{name}"({", ".join(arguments)}) {_BODY}'
        for name, count in sorted(await connection.fetch(_COUNTS, called))
        for arguments in _arguments(types, count)
    ]
    for operator in sorted(written & operators):
        for a, b in itertools.product(types, types):
            name = f'{schema}."planted {a} {operator} {b}"'  # an error says which it was
            made += [
                f"CREATE FUNCTION {name}({a}, {b}) {_BODY}",
                f"CREATE OPERATOR {schema}.{operator} ({_OF.format(a, b, name)})",
            ]
    await connection.execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
    await connection.execute(_EACH)
    count: int = await connection.fetchval("SELECT pg_temp.each($1)", made)
    return count


def _arguments(types: tuple[str, ...], count: int) -> Iterator[tuple[str, ...]]:
    few = {1: types, 2: types, 3: _FEW, 4: _FEWER}[count]
    return itertools.product(few, repeat=count)
