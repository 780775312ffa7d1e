"""`make release-check`: what is built of this checkout, installed and run as a stranger would.

The placeholder is looked for last, so that all the rest is known where it is still there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from container import prepare
from contents import faults_of
from facts import ROOT, faults_of_version, tracked, version, with_placeholder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SMOKE = Path(__file__).with_name("smoke.py")
MINUTES = 10 * 60
# A stranger's environment names no server, and none of ours.
OURS = ("PGVECTOR_", "QORTEX_", "DATABASE_URL", "PYTHON", "VIRTUAL_ENV")


class Refused(Exception):  # noqa: N818 - an answer, not a fault of this program
    """It may not be released; the lines say why."""


@contextmanager
def step(what: str) -> Iterator[None]:
    """Tell what is done, and how long it took."""
    started = time.monotonic()
    print(f"{what} ...", flush=True)
    yield
    print(f"  {time.monotonic() - started:.0f} s", flush=True)


def refuse(faults: Sequence[str]) -> None:
    """Go no further where there are faults."""
    if faults:
        raise Refused("\n".join(faults))


def run(*command: str | Path, cwd: Path) -> str:
    """Run a program to its end, in an environment without ours, for what it printed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=kept,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=MINUTES,
        check=False,
    )
    if done.returncode:
        words = " ".join(map(str, command))
        raise Refused(f"{words} ended with {done.returncode}:\n{done.stdout[-4_000:]}")
    return done.stdout


def build(folder: Path) -> list[Path]:
    """The source distribution and the wheel."""
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=ROOT)
    return sorted(folder.iterdir())


def install_and_run(archive: Path, folder: Path) -> None:
    """A clean environment, with what an index would give today."""
    folder.mkdir(mode=0o755)
    run(sys.executable, "-m", "venv", folder / "env", cwd=folder)
    programs = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    python = programs / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    with step(f"{archive.name}: installed without extras"):
        run(*pip, archive, cwd=folder)
        print("  " + run(python, "-I", SMOKE, "base", cwd=folder).strip())
    with step(f"{archive.name}: installed with [cli,embedded], the demo"):
        run(*pip, f"{archive}[cli,embedded]", cwd=folder)
        said = run(programs / "qortex-db", "--version", cwd=folder)
        refuse([] if version() in said else [f"qortex-db --version says {said}"])
        said = run(programs / "qortex-db", "demo", cwd=folder)
        refuse([] if "800/800" in said else [f"The demo does not end as it should:\n{said}"])
    with step(f"{archive.name}: upgrade, upsert, search and observe"):
        print("  " + run(python, "-I", SMOKE, "server", cwd=folder).strip())


def check_deploy(folder: Path) -> None:
    """The files of deploy/: by linters, and the image's steps by hand."""
    programs, deploy = Path(sys.executable).parent, ROOT / "deploy"
    with step("deploy/: the container's file and the manifests"):
        run(programs / "hadolint", deploy / "Dockerfile", cwd=folder)
        manifests = sorted((deploy / "kubernetes").glob("*.yaml"))
        run(programs / "kubernetes-validate", "--strict", *manifests, cwd=folder)
    with step("deploy/: the steps of the image, by hand"):
        source, installed = folder / "source", folder / "installed"
        source.mkdir(mode=0o755)
        for command in prepare(ROOT, source, installed):
            run("sh", "-ec", command, cwd=source)
        place = ROOT / "examples"
        code = f"import sys; sys.path.insert(0, {str(place)!r}); import fastapi_service, uvicorn"
        run(installed / "bin/python", "-I", "-B", "-c", code, cwd=folder)
        run(installed / "bin/qortex-db", "--version", cwd=folder)


def check(folder: Path, *, tag: str | None) -> Path:
    """All but the placeholder; the folder of what was built.

    Raises:
        Refused: Something is not as it should be.
    """
    with step("The version, in the package, the changelog and the citation"):
        refuse(faults_of_version(tag=tag))
    with step("Wheel and source distribution"):
        built = build(folder / "dist")
        print("".join(f"  {one.name}: {one.stat().st_size:,} bytes\n" for one in built), end="")
    with step("Metadata and readme, as an index reads them"):
        run(sys.executable, "-m", "twine", "check", "--strict", *built, cwd=folder)
    with step("Contents"):
        known = tracked()
        refuse([fault for one in built for fault in faults_of(one, known)])
    check_deploy(folder)
    for place, archive in enumerate(built):
        install_and_run(archive, folder / str(place))
    return folder / "dist"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, and tell; 0 if it may be published, or would be without the placeholder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tag", help="what git calls this commit; it has to be the version's")
    parser.add_argument("--dist", type=Path, help="a new folder that is given what was checked")
    parser.add_argument("--dry-run", action="store_true", help="the placeholder may be there")
    given = parser.parse_args(arguments)
    left = with_placeholder()
    try:
        with tempfile.TemporaryDirectory(prefix="qx-release-") as name:
            folder = Path(name)
            folder.chmod(0o755)  # under root the server has a user of its own
            built = check(folder, tag=given.tag)
            if given.dist is not None and not left:
                shutil.copytree(built, given.dist)
    except Refused as fault:
        print(f"Not to be released:\n{fault}", file=sys.stderr)
        return 1
    if not left:
        print("To be released.")
        return 0
    print(
        f"Everything but the placeholder is as it should be. It is in {', '.join(left)}: "
        "RELEASING.md says what to write in its place.",
        file=sys.stdout if given.dry_run else sys.stderr,
    )
    return 0 if given.dry_run else 1


if __name__ == "__main__":
    sys.exit(main())
