"""What has to be true of the sources before anything is built of them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PLACEHOLDER: Final = "qortex-db" + ".invalid"  # in two parts, so that it is not found here
_EXCEPT: Final = ("RELEASING.md", "tests/")  # what says how to replace it
_VERSION: Final = re.compile(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?")


def version(root: Path = ROOT) -> str:
    """The version, as the package has it."""
    (found,) = re.findall(
        r'^__version__ = "(.+)"$', (root / "qortex_db/__about__.py").read_text(), re.MULTILINE
    )
    return str(found)


def faults_of_version(root: Path = ROOT, tag: str | None = None) -> list[str]:
    """What does not agree on the version.

    Args:
        root: The checkout.
        tag: What git calls this commit, if that is known.
    """
    said = version(root)
    faults = []
    if _VERSION.fullmatch(said) is None:
        faults.append(f"qortex_db/__about__.py: {said} is no version of a release.")
    changelog = (root / "CHANGELOG.md").read_text()
    if (
        re.search(rf"^## \[{re.escape(said)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE)
        is None
    ):
        faults.append(f"CHANGELOG.md has no section `## [{said}] - YYYY-MM-DD`.")
    if f"\nversion: {said}\n" not in (root / "CITATION.cff").read_text():
        faults.append(f"CITATION.cff: its version is not {said}.")
    if tag is not None and tag != f"v{said}":
        faults.append(f"The tag is {tag}, and the version {said}.")
    return faults


def tracked(root: Path = ROOT) -> set[str]:
    """The files that git knows."""
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True
    )
    return {name for name in done.stdout.split("\0") if name}


def with_placeholder(root: Path = ROOT) -> list[str]:
    """The files in which an address has still to be written, in the place of the placeholder."""
    return sorted(
        name
        for name in tracked(root)
        if not name.startswith(_EXCEPT)
        and (root / name).is_file()
        and PLACEHOLDER.encode() in (root / name).read_bytes()
    )
