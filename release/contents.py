"""What a wheel and a source distribution have to hold, and what not."""

from __future__ import annotations

import tarfile
import zipfile
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from pathlib import Path

PACKAGE: Final = "qortex_db/"
REVISIONS: Final = "alembic/"
CARRIED: Final = "qortex_db/_alembic/"
"""Where an installed package has the revisions; in a checkout a link."""
_BESIDE: Final = {"pytest_qortex_db.py"}
_IN_SDIST: Final = (
    *("PKG-INFO", "pyproject.toml", "README.md", "CHANGELOG.md", "SECURITY.md", "LICENSE"),
    *("CITATION.cff", "alembic.ini", ".gitignore", *_BESIDE),
    *(PACKAGE, REVISIONS, "docs/", "examples/", "tests/"),
)
_MOST_BYTES: Final = {".whl": 4_000_000, ".gz": 12_000_000}


def names_in(archive: Path) -> list[str]:
    """The files of a wheel, or of a source distribution without its folder."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.namelist()
    with tarfile.open(archive) as sdist:
        return [one.name.partition("/")[2] for one in sdist.getmembers() if not one.isdir()]


def faults_of_wheel(names: list[str], tracked: AbstractSet[str]) -> list[str]:
    """What is missing in a wheel, or too much.

    Args:
        names: Its files.
        tracked: Those of the repository.
    """
    package = {one for one in tracked if one.startswith(PACKAGE)} - {CARRIED.rstrip("/")}
    revisions = {
        CARRIED + one.removeprefix(REVISIONS) for one in tracked if one.startswith(REVISIONS)
    }
    wanted = package | revisions | _BESIDE
    held = {one for one in names if ".dist-info/" not in one}
    licences = [one for one in names if ".dist-info/licenses/" in one]
    faults = [f"twice: {one}" for one in sorted({one for one in names if names.count(one) > 1})]
    faults += [f"missing: {one}" for one in sorted(wanted - held)]
    faults += [f"too much: {one}" for one in sorted(held - wanted)]
    for licence in ("LICENSE", "qortex_db/sample/LICENSE.txt"):
        if not any(one.endswith(f"/licenses/{licence}") for one in licences):
            faults.append(f"missing: the licence {licence}")
    return faults


def faults_of_sdist(names: list[str], tracked: AbstractSet[str]) -> list[str]:
    """The same of a source distribution."""
    of_ours = {one for one in tracked if one.startswith((PACKAGE, REVISIONS))}
    of_ours.discard(CARRIED.rstrip("/"))
    held = {one for one in names if not one.startswith(CARRIED)}  # which the link leads to
    faults = [f"missing: {one}" for one in sorted(of_ours - held)]
    faults += [f"too much: {one}" for one in sorted(held - tracked - {"PKG-INFO"})]
    faults += [f"not expected: {one}" for one in sorted(held) if not one.startswith(_IN_SDIST)]
    return faults


def faults_of(archive: Path, tracked: AbstractSet[str]) -> list[str]:
    """What is wrong with the contents of a wheel or a source distribution."""
    names = names_in(archive)
    check = faults_of_wheel if archive.suffix == ".whl" else faults_of_sdist
    faults = check(names, tracked)
    size, most = archive.stat().st_size, _MOST_BYTES[archive.suffix]
    if size > most:
        faults.append(f"{size:,} bytes, of {most:,} at most")
    return [f"{archive.name}: {fault}" for fault in faults]
