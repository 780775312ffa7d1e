"""What the container's file does, without a container: its steps, in a folder of their own."""

from __future__ import annotations

import re
import shlex
import shutil
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

INSTALLED: Final = "/opt/qortex-db"


def steps(dockerfile: str) -> list[tuple[str, str]]:
    """COPY and RUN of the first stage, in their order."""
    stage = dockerfile.replace("\\\n", " ").split("\nFROM ")[1]
    return re.findall(r"^(COPY|RUN) (.+)$", stage, re.MULTILINE)


def prepare(root: Path, source: Path, installed: Path) -> list[str]:
    """Copy what is copied, and give what is to be run, with a folder in the place of the image's.

    Args:
        root: The checkout.
        source: An empty folder for the stage's own.
        installed: Where the environment shall be.
    """
    commands = []
    for kind, words in steps((root / "deploy/Dockerfile").read_text()):
        if kind == "RUN":
            commands.append(words.replace(INSTALLED, str(installed)))
            continue
        *names, target = shlex.split(words)
        for name in names:
            place = source / (name if target == "./" else target)
            if (root / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "_alembic")  # by .dockerignore
                shutil.copytree(root / name, place, ignore=ignored)
            else:
                shutil.copy(root / name, place)
    return commands
