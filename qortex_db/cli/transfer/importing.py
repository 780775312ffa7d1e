"""The command that brings what others hold."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qortex_db.cli.shell import (
    AsJson,
    Embedded,
    Head,
    Ini,
    err,
    fail,
    note,
    opened,
    out,
    print_json,
    reached,
    read_settings,
    run,
    say,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qortex_db import Settings
    from qortex_db.transfer import ImportPlan, ImportReport, MemoryPart, Source

_IN_DATABASES = ("pgvector", "langchain", "llamaindex")
_NO_OPTIONS = ("kind", "location", "collection", "api_key", "settings")
"""What `open_source` takes that is told otherwise."""


def import_(
    source: Annotated[
        str, typer.Argument(help="qdrant, chroma, milvus, jsonl … as the page says.")
    ],
    location: Annotated[
        str, typer.Argument(help="A URL, a DSN, a folder or a file; '' for this database.")
    ],
    collection: Annotated[
        str | None, typer.Argument(help="Which of its collections, indexes or tables.")
    ] = None,
    *,
    into: Annotated[
        str | None, typer.Option(help="As package.module:Model; by default qortex_vectors.")
    ] = None,
    namespace: Annotated[str | None, typer.Option(help="Of a collection that has them.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="What the source takes: name=value.")
    ] = None,
    document: Annotated[
        str | None, typer.Option(help="The key that becomes the document; '' for none.")
    ] = None,
    payload: Annotated[
        str | None, typer.Option(help="The key whose object becomes the payload; '' for none.")
    ] = None,
    vector: Annotated[
        str | None, typer.Option(help="The vector that becomes the collection's own.")
    ] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option(help="A vector that stays behind; several by several.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what will be; stop.")] = False,
    write_model: Annotated[
        Path | None, typer.Option(help="Write the model for it there, and its revision; stop.")
    ] = None,
    table: Annotated[
        str | None, typer.Option(help="Of that model; by default as the source calls it.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Its declarative base, as package.module:Base.")
    ] = None,
    config: Ini = Path("alembic.ini"),
    head: Head = None,
    rejects: Annotated[
        Path | None,
        typer.Option(help="A file for the rows that are no good; by default NAME.rejects.jsonl."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=100_000, help="Rows at a time.")] = 1_000,
    anew: Annotated[bool, typer.Option("--anew", help="Begin anew, whatever was done.")] = False,
    as_json: AsJson = False,
    embedded: Embedded = False,
) -> None:
    """Bring the rows of another database, or of files, and compare what came.

    It can be stopped at any time: run again, it goes on where it was. Exit status 1: something is
    not as it was there. An API key is QORTEX_DB_IMPORT_API_KEY.
    """
    from qortex_db.cli.host_models import load_model
    from qortex_db.transfer import Choices, import_collection, plan_import

    settings = read_settings()
    choices = Choices(document, payload, vector, tuple(leave_out or ()))
    model = None if into is None else load_model(into)
    name = table or _table_name(collection or Path(location).stem or source)
    aside = rejects or Path(f"{name}.rejects.jsonl")

    async def opened_source(given: Settings) -> Source:
        return await _open(source, location, collection, _options(option), given)

    async def planned() -> ImportPlan:
        here = source in _IN_DATABASES and not location
        async with reached(settings, embedded=embedded) if here else nullcontext(settings) as given:
            found = await opened_source(given)
            try:
                return await plan_import(found, choices)
            finally:
                await found.close()

    async def done() -> ImportReport:
        from qortex_db import Database

        async with reached(settings, embedded=embedded) as given:
            found = await opened_source(given)
            try:
                async with Database.connect(given) as database:
                    return await import_collection(
                        database,
                        found,
                        into=model,
                        namespace=namespace,
                        choices=choices,
                        batch_size=batch_size,
                        rejects=aside,
                        anew=anew,
                        on_progress=_show,
                    )
            finally:
                await found.close()

    if dry_run or write_model is not None:
        plan = run(planned())
        if as_json:
            print_json(_plain(plan))
        else:
            _tell_plan(plan)
        if write_model is not None:
            _write(plan, name, write_model, base=base, config=config, head=head)
        return
    memory = run(_memory(location, embedded=embedded)) if source == "qortex-sqlite" else []
    report = run(done())
    if as_json:
        told = {"faults": report.faults, "memory": [asdict(part) for part in memory]}
        print_json(_plain(report) | told)
    else:
        _tell_memory(memory)
        _tell_report(report)
        if report.rejected:
            say(f"All that were no good are in {aside}.")
    if not (report.is_good and all(part.is_good for part in memory)):
        raise typer.Exit(1)


async def _memory(folder: str, *, embedded: bool) -> list[MemoryPart]:
    """Bring what qortex keeps beside its vectors."""
    from qortex_db import NotFoundError
    from qortex_db.transfer import import_qortex_memory

    async with opened(embedded=embedded) as database:
        try:
            return await import_qortex_memory(database, folder)
        except NotFoundError:  # the file of the vectors was named
            return []


def _tell_memory(parts: Sequence[MemoryPart]) -> None:
    for part in parts:
        say(
            f"{part.source}: {part.rows:,} rows, {part.written:,} written into {part.into}, "
            f"{len(part.rejects):,} were no good, {len(part.differing):,} differ."
        )
        _list("No good:", [f"{each.where}: {each.reason}" for each in part.rejects[:10]])
        _list("Different:", part.differing[:10])


def _options(given: Sequence[str] | None) -> dict[str, str]:
    options = {}
    for each in given or ():
        name, is_one, value = each.partition("=")
        if not is_one or not name.isidentifier():
            fail(f"--option {each} has to be name=value.", status=2)
        if name in _NO_OPTIONS:
            fail(f"--option {name} is no option of a source.", status=2)
        options[name] = value
    return options


async def _open(
    kind: str, location: str, collection: str | None, options: dict[str, str], settings: Settings
) -> Source:
    from qortex_db import InvalidInputError
    from qortex_db.transfer import open_source

    given: dict[str, Any] = dict(options)
    if kind in _IN_DATABASES and not location:
        given["settings"] = settings
    # A folder takes none, whatever the environment has for servers.
    key = settings.import_api_key if "://" in location or kind == "pinecone" else None
    try:
        return await open_source(
            kind,
            location,
            collection,
            api_key=None if key is None else key.get_secret_value(),
            **given,
        )
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        named = str(error).rpartition(" ")[2]
        raise InvalidInputError(f"The source {kind} takes no option {named}.") from None


def _show(read: Any) -> None:
    if err().is_terminal:
        rejected = f", {read.rejected:,} no good" if read.rejected else ""
        err().print(
            f"{int(read):,} rows read{rejected}, {read.rows_per_second:,.0f} a second",
            highlight=False,
        )


def _table_name(name: str) -> str:
    from qortex_db.names import plain_name

    plain = plain_name(name) or "rows"
    return plain if plain[0].isalpha() else f"rows_{plain}"


def _write(
    plan: ImportPlan, name: str, file: Path, *, base: str | None, config: Path, head: str | None
) -> None:
    from qortex_db import QortexDbError
    from qortex_db.cli import host_models
    from qortex_db.migrations.new_model import NewModel, write_model

    metadata = None if base is None else host_models.metadata_of(base, option="--base")
    indexes = [(each.path, each.kind) for each in plan.source.indexes]
    try:
        new = NewModel(name, plan.specs, base, indexes=indexes)
        written = write_model(new, file, metadata=metadata, ini=config, head=head)
    except QortexDbError as error:
        fail(str(error))
    for each in written:
        note(f"Wrote {each}")


def _plain(told: Any) -> dict[str, Any]:
    """A plan or a report for JSON."""
    plain = asdict(told)
    specs = getattr(told, "plan", told).specs
    plain.get("plan", plain)["specs"] = {name: asdict(spec) for name, spec in specs.items()}
    return plain


def _tell_plan(plan: ImportPlan) -> None:
    from qortex_db.cli import render

    say(f"From {plan.label}")
    counted = (
        "rows that it can't count" if plan.source.rows is None else f"{plan.source.rows:,} rows"
    )
    say(f"It has {counted}.")
    vectors = render.table("vector", "becomes", ">dimensions", "metric", "storage", "index")
    for name, target in plan.vectors.items():
        spec = plan.specs[target]
        index = "none" if spec.index is None else spec.index.method
        if spec.quantization is not None:
            index += f" ({spec.quantization})"
        size = "any" if spec.dimensions is None else f"{spec.dimensions:,}"
        shown = (render.escape(name or "(its only one)"), target, size)
        vectors.add_row(*shown, spec.metric, spec.storage, index)
    out().print(vectors)
    keys = render.table("key of the payload", "types in the first rows", "index")
    indexes = {each.path: each.kind for each in plan.source.indexes}
    for key in dict.fromkeys([*plan.keys, *indexes]):
        keys.add_row(render.escape(key), plan.keys.get(key, ""), indexes.get(key, ""))
    out().print(keys)
    _tell_keys(plan)
    for title, lines in (("Otherwise:", plan.notes), ("Left behind:", plan.source.left_out)):
        _list(title, lines)


def _tell_keys(plan: ImportPlan) -> None:
    for what, found in (("document", plan.document), ("payload", plan.payload)):
        if found is not None:
            guess = " (a guess: say another)" if what in plan.guessed else ""
            say(f"The {what} is the key {found}{guess}.")


def _tell_report(report: ImportReport) -> None:
    say(f"From {report.source} into {report.into}")
    say(
        f"{report.read:,} rows were read, {report.written:,} written, {report.rejected:,} were no "
        f"good; {report.stored:,} are there."
    )
    _tell_keys(report.plan)
    say(f"{report.sampled} rows were compared field by field: {len(report.differences)} differ.")
    for each in report.overlaps:
        name = each.vector or "the vector"
        if each.share is None:
            say(f"Searches by {name} were not compared: the source has none.")
        else:
            say(
                f"Searches by {name}: {each.share:.1%} of what the source finds in its best ten is "
                f"found here, in {each.queries} queries."
            )
    _list("Otherwise:", report.notes)
    _list("Left behind:", report.plan.source.left_out)
    _list("No good:", [f"{each.where}: {each.reason}" for each in report.rejects])
    _list(
        "Different:",
        [f"{each.id}: {', '.join(each.fields)}" for each in report.differences],
    )
    _list("Not as it should be:", report.faults)


def _list(title: str, lines: Sequence[str]) -> None:
    if lines:
        say(title)
    for line in lines:
        say(f"  - {line}")
