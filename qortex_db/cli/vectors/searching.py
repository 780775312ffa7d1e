"""`qortex-db vectors search`, `get` and `count`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from qortex_db.cli.shell import AsJson, Embedded, Models, fail, note, out, print_json, run, say
from qortex_db.cli.vectors.chosen import (
    Embedder,
    Model,
    Name,
    Namespace,
    choose,
    vectors_of,
)
from qortex_db.cli.vectors.where import Where, read_where

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Table

    from qortex_db import SearchHit

MAX_EMBEDDING_BYTES: Final = 4 * 2**20
"""More than the JSON of 16,000 components takes, however they are written."""
_LONGEST: Final = 200


def search(
    text: Annotated[
        str | None, typer.Argument(help="What to look for in words; wants --embedder.")
    ] = None,
    *,
    embedding: Annotated[
        str | None,
        typer.Option(help="Or by what numbers: a JSON array, a file of one, or - for the input."),
    ] = None,
    like: Annotated[
        str | None, typer.Option(help="Or what is like a stored row, by its id.")
    ] = None,
    where: Where = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many at most.")] = 10,
    min_score: Annotated[
        float | None, typer.Option(help="Leave out what scores less; by cosine -1 to 1.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every row.")] = False,
    using: Annotated[str | None, typer.Option(help="Which vector, of several.")] = None,
    embedder: Embedder = None,
    model: Model = None,
    collection: Name = None,
    namespace: Namespace = None,
    metadata: Models = None,
    as_json: AsJson = False,
    embedded: Embedded = False,
) -> None:
    """Print the rows that are most similar to a text, an embedding or another row."""
    if [text, embedding, like].count(None) != 2:  # noqa: PLR2004 - of three
        fail("Pass one of a text, --embedding and --like.", status=2)
    if like is not None and min_score is not None:
        fail("--min-score goes with a text or --embedding.", status=2)
    chosen = choose(model, collection, metadata, namespace, embedder)
    query = text if embedding is None else _embedding(embedding)
    options: dict[str, Any] = {
        "where": read_where(where),
        "limit": limit,
        "exact": exact,
        "using": using,
    }

    async def find() -> Sequence[SearchHit[Any]]:
        async with vectors_of(chosen, embedded=embedded) as vectors:
            if like is not None:
                return await vectors.recommend([_key(like, chosen.table)], **options)
            return await vectors.search(query, min_score=min_score, **options)  # type: ignore[arg-type]

    hits = run(find())
    if as_json:
        from qortex_db.cli.vectors.json_rows import told

        print_json([told(hit) for hit in hits])
        return
    _show(hits)


def _embedding(given: str) -> Any:
    from qortex_db import InvalidInputError
    from qortex_db.cli.vectors.json_rows import embedding_of
    from qortex_db.cli.vectors.lines import read_whole

    try:
        if not given.lstrip().startswith(("[", "{")):
            given = read_whole(Path(given), MAX_EMBEDDING_BYTES).decode()
        return embedding_of(json.loads(given))
    except InvalidInputError as error:
        fail(str(error), status=2)
    except (ValueError, RecursionError):
        fail("--embedding is no JSON array of numbers.", status=2)


def _key(given: str, table: Table) -> Any:
    """An id as the key's column has it: a number, several in JSON, or the text itself."""
    from qortex_db.values.keys import IntegerKey, key_type

    kind = key_type(table)
    try:
        if kind.is_composite:
            return tuple(json.loads(given))
        return int(given) if isinstance(kind, IntegerKey) else given
    except (ValueError, TypeError):
        what = 'a JSON array, as ["a", 1]' if kind.is_composite else "a whole number"
        fail(f"The ids of {table.name} are {what}.", status=2)


def _show(hits: Sequence[SearchHit[Any]]) -> None:
    from qortex_db.cli import render

    if not hits:
        say("Nothing was found.")
        return
    shown = render.table(">#", ">score", "id", "document, payload")
    for rank, hit in enumerate(hits, 1):
        shown.add_row(
            str(rank),
            f"{hit.score:.4f}",
            render.escape(_id(hit.id)),
            _body(hit.document, hit.payload),
        )
    out().print(shown)


def _id(key: Any) -> str:
    return json.dumps(key, default=str) if isinstance(key, tuple) else str(key)


def _body(document: str | None, payload: Any) -> str:
    """What a row says, in a few lines."""
    from qortex_db.cli import render

    parts = []
    if document is not None:
        parts.append(render.escape(_cut(" ".join(document.split()))))
    if payload:
        parts.append(f"[dim]{render.escape(_cut(json.dumps(payload, ensure_ascii=False)))}[/]")
    return "\n".join(parts)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def get(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="One or more.")],
    *,
    model: Model = None,
    collection: Name = None,
    namespace: Namespace = None,
    metadata: Models = None,
    as_json: AsJson = False,
    embedded: Embedded = False,
) -> None:
    """Print rows by their ids; exit status 1 if one is not there."""
    chosen = choose(model, collection, metadata, namespace)
    keys = [_key(each, chosen.table) for each in ids]

    async def read() -> dict[Any, Any]:
        async with vectors_of(chosen, embedded=embedded) as vectors:
            return await vectors.get(keys)

    found = run(read())
    if as_json:
        from qortex_db.cli.vectors.json_rows import written

        print_json([json.loads(written(record)) for record in found.values()])
    elif found:
        from qortex_db.cli import render

        shown = render.table("id", ">dimensions", "document, payload")
        for key, record in found.items():
            size = "none" if record.embedding is None else _dimensions(record.embedding)
            shown.add_row(render.escape(_id(key)), size, _body(record.document, record.payload))
        out().print(shown)
    there = {str(key) for key in found}
    missing = [given for given, key in zip(ids, keys, strict=True) if str(key) not in there]
    for each in missing:
        note(f"{each} is not there.")
    if missing:
        raise typer.Exit(1)


def _dimensions(embedding: Any) -> str:
    dimensions = getattr(embedding, "dimensions", None)
    return str(len(embedding) if dimensions is None else dimensions())


def count(
    *,
    where: Where = None,
    model: Model = None,
    collection: Name = None,
    namespace: Namespace = None,
    metadata: Models = None,
    as_json: AsJson = False,
    embedded: Embedded = False,
) -> None:
    """Print how many rows there are, or match."""
    chosen = choose(model, collection, metadata, namespace)
    wanted = read_where(where)

    async def read() -> int:
        async with vectors_of(chosen, embedded=embedded) as vectors:
            return await vectors.count(where=wanted)

    number = run(read())
    if as_json:
        print_json({"count": number})
    else:
        say(f"{number:,}")
