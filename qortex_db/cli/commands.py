"""The app: which commands there are, and what is true of all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from qortex_db import __version__
from qortex_db.cli.app import App
from qortex_db.cli.memory import keys
from qortex_db.cli.memory.arms import arms
from qortex_db.cli.memory.edges import edges
from qortex_db.cli.memory.factors import factors
from qortex_db.cli.overview import commands as overview
from qortex_db.cli.overview import doctor, plan
from qortex_db.cli.schema import commands as schema
from qortex_db.cli.schema import distribute, roles
from qortex_db.cli.shell import group, out
from qortex_db.cli.transfer import archive, importing
from qortex_db.cli.vectors import encryption, loading, searching, words
from qortex_db.cli.vectors.collections import collections
from qortex_db.cli.vectors.index import index
from qortex_db.cli.vectors.model import model

if TYPE_CHECKING:
    from collections.abc import Callable

vectors = group("The rows of a collection: searched, read, counted, stored and written out.")
for _each in (searching.search, searching.get, searching.count, loading.ingest, loading.export):
    vectors.command()(_each)
_PLAIN: Final[tuple[Callable[..., None], ...]] = (
    *(schema.upgrade, schema.check, schema.adopt, roles.roles, distribute.distribute),
    *(overview.status, doctor.doctor, overview.report, overview.demo, plan.plan),
    *(encryption.rotate_keys, words.count_words, words.fill_words, keys.prune_keys),
    *(archive.export, archive.restore),
)
_GROUPS: Final = {
    "arms": arms,
    "factors": factors,
    "edges": edges,
    "index": index,
    "vectors": vectors,
    "collections": collections,
    "model": model,
}

app = App()
for _name, _group in _GROUPS.items():
    app.add_typer(_group, name=_name)
for _command in _PLAIN:
    app.command()(_command)
app.command(context_settings={"ignore_unknown_options": True})(schema.downgrade)  # -1 is no option
app.command("import")(importing.import_)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer's form
    if wanted:
        out().print(f"qortex-db {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def main(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The PostgreSQL memory of an AI system.

    The server comes from PGVECTOR_DSN, PGVECTOR_HOST and its kin, or DATABASE_URL.
    """
