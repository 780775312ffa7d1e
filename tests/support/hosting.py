"""A host project made as a page of docs/host says, and both sides' commands to run on it."""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

from alembic import command
from alembic.config import Config

from qortex_db import Settings, migrations
from qortex_db.models import Base
from support.catalogue import VERSION_TABLE
from support.commands import program as run_program

PAGES = Path(__file__).parents[2] / "docs/host"
HEAD = migrations.head_revision()
OURS = {*Base.metadata.tables, VERSION_TABLE}
FENCE = re.compile(r"^```(\w+)\n(?:# (\S+)\n)?(.*?)^```", re.MULTILINE | re.DOTALL)
CONFIGURE = re.compile(
    r"^ *context\.configure\(\s*connection=connection, target_metadata=target_metadata\s*\)",
    re.MULTILINE,
)

HOST_ENV = """
import os
from alembic import context
from sqlalchemy import Connection, pool
from sqlalchemy.ext.asyncio import create_async_engine
import asyncio

OPTIONS = {options}
context.config.attributes["qortex_db"] = OPTIONS

def migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=None)
    with context.begin_transaction():
        context.run_migrations()

async def main() -> None:
    engine = create_async_engine(os.environ["HOST_URL"], poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)

asyncio.run(main())
"""
HOST_REVISION = """
from alembic import op
revision, down_revision, branch_labels, depends_on = "host1", None, ("host",), "qortex_db_0001"

def upgrade() -> None:
    op.execute("CREATE TABLE host_notes (vector_id text REFERENCES {schema}qortex_vectors)")

def downgrade() -> None:
    op.execute("DROP TABLE host_notes")
"""


class Result(NamedTuple):
    code: int | None
    out: str


class Page:
    """A page's blocks: of files, by the name in their first line, and of commands."""

    def __init__(self, name: str) -> None:
        found = FENCE.findall((PAGES / f"{name}.md").read_text())
        self.files: dict[str, list[str]] = {}
        for _, path, text in found:
            self.files.setdefault(path, []).append(text)
        self.commands = [
            line.split("#")[0].strip()
            for language, _, text in found
            if language == "shell"
            for line in text.replace("\\\n", " ").splitlines()
        ]


class Project:
    """A host: Alembic's own template, changed as a page says."""

    def __init__(self, folder: Path, dsn: str, page: str) -> None:
        self.folder = folder
        self.dsn = dsn
        self.page = Page(page)
        # Python takes a module that was changed within a second, to the same size, for the old one.
        self.environment = {"PGVECTOR_DSN": dsn, "PYTHONDONTWRITEBYTECODE": "1"}

    async def start(self, template: str = "async") -> Project:
        config = Config(self.folder / "alembic.ini", self.folder / "pyproject.toml")
        with contextlib.chdir(self.folder):
            command.init(config, "alembic", template=template)
        url = self.dsn.replace("postgresql://", "postgresql+asyncpg://").replace("%", "%%")
        self.edit("alembic.ini", "driver://user:pass@localhost/dbname", url)
        self.edit("alembic/script.py.mako", "import sqlalchemy as sa", "", prepend=True)
        settings, configure = self.page.files["alembic/env.py"]
        self.edit("alembic/env.py", "target_metadata = None", settings)
        file = self.folder / "alembic/env.py"
        text, count = CONFIGURE.subn(configure.replace("\n", "\n    "), file.read_text())
        assert count == 1
        file.write_text(text.replace("\ncontext.configure", "\n    context.configure"))
        self.write("myapp/__init__.py", "")
        if models := self.page.files.get("myapp/models.py"):
            self.write("myapp/models.py", models[0])
        return self

    def write(self, path: str, text: str) -> None:
        (self.folder / path).parent.mkdir(exist_ok=True)
        (self.folder / path).write_text(text)

    def edit(self, path: str, old: str, new: str, *, prepend: bool = False) -> None:
        text = (self.folder / path).read_text()
        assert old in text, f"{path} has no {old}"
        self.write(
            path, text.replace(old, "import pgvector.sqlalchemy\n" + old if prepend else new)
        )

    async def run(self, program: str, *arguments: str) -> Result:
        module = {"alembic": "alembic", "qortex-db": "qortex_db"}[program]
        command = (sys.executable, "-m", module, *arguments)
        done = await run_program(*command, cwd=self.folder, **self.environment)
        return Result(done.code, done.out + done.err)

    async def succeed(self, command: str) -> str:
        done = await self.run(*shlex.split(command))
        assert done.code == 0, f"{command}\n{done.out}"
        assert "Warning" not in done.out, f"{command}\n{done.out}"
        return done.out

    async def run_page(self) -> None:
        """All of the page's commands, in its order."""
        for line in self.page.commands:
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").partition("=")
                self.environment[name] = value
            elif not line.startswith("alembic stamp"):  # of a host that is there already
                await self.succeed(line)

    async def proposed(self) -> list[tuple[str, str]]:
        """The operations on tables that autogenerate writes into a new revision's upgrade."""
        await self.succeed("alembic revision --autogenerate -m probe")
        return self.written("*_probe.py")

    def written(self, name: str = "*.py") -> list[tuple[str, str]]:
        """The operations on tables in the one revision of that name."""
        (file,) = (self.folder / "alembic/versions").glob(name)
        upgrade = file.read_text().partition("def upgrade()")[2].partition("def downgrade()")[0]
        return re.findall(r"op\.(\w+_table)\(\s*'(\w+)'", upgrade)


async def ours_is_current(project: Project, **settings: str) -> bool:
    return (await migrations.check(Settings(dsn=project.dsn, **settings))).is_current


def declare(project: Project, way: str) -> None:
    models = "myapp/models.py"
    if way == "by name":
        index = Page("index").files[""]
        copy = next(text for text in index if "to_metadata" in text).splitlines()[0]
        project.edit(models, "ForeignKey(QortexVector.id", 'ForeignKey("qortex_vectors.id"')
        project.edit(models, "class Note", f"{copy}\n\n\nclass Note")
    elif way == "by model, named by a convention":
        project.edit(
            models,
            "    pass\n",
            "    from qortex_db.models import NAMING_CONVENTION\n"
            "    from sqlalchemy import MetaData\n"
            "    metadata = MetaData(naming_convention=NAMING_CONVENTION)\n",
        )
    elif way == "with our metadata in a list":
        index = Page("index").files[""]
        (listed,) = [text for text in index if text.startswith("target_metadata = [")]
        project.edit(
            "alembic/env.py",
            "target_metadata = Base.metadata",
            f"import qortex_db.models\n{listed}",
        )
