"""What is built for an index is whole, and what may not be published is refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from qortex_db import migrations
from support.commands import BIN, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

METADATA = """
import os, sys
from hatchling.build import prepare_metadata_for_build_wheel as prepare
print(prepare(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def facts() -> Iterator[Any]:
    sys.path.insert(0, str(ROOT / "release"))
    import facts  # noqa: PLC0415 - a script's

    yield facts
    sys.path.remove(str(ROOT / "release"))


@pytest.fixture(scope="module")
def contents(facts: Any) -> Any:
    import contents  # noqa: PLC0415 - the same

    return contents


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small one, that says what has to agree."""
    (tmp_path / "qortex_db").mkdir()
    (tmp_path / "qortex_db/__about__.py").write_text('"""."""\n\n__version__ = "0.2.0"\n')
    (tmp_path / "CITATION.cff").write_text("title: q\nversion: 0.2.0\nlicense: MIT\n")
    (tmp_path / "CHANGELOG.md").write_text("## [Unreleased]\n\n## [0.2.0] - 2026-01-31\n")
    return tmp_path


def test_a_version_that_all_agree_on_has_no_fault(facts: Any, checkout: Path) -> None:
    assert facts.faults_of_version(checkout) == []
    assert facts.faults_of_version(checkout, "v0.2.0") == []


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("qortex_db/__about__.py", "0.2.0", "0.2.0.dev1"),
        ("CHANGELOG.md", " - 2026-01-31", ""),
        ("CHANGELOG.md", "[0.2.0]", "[0.2.0rc1]"),
        ("CITATION.cff", "0.2.0", "0.1.0"),
    ],
)
def test_a_version_that_one_does_not_know_is_refused(
    facts: Any, checkout: Path, name: str, old: str, new: str
) -> None:
    (checkout / name).write_text((checkout / name).read_text().replace(old, new))
    assert [fault for fault in facts.faults_of_version(checkout) if fault.startswith(name)]


def test_a_tag_of_another_version_is_refused(facts: Any, checkout: Path) -> None:
    (fault,) = facts.faults_of_version(checkout, "v0.3.0")
    assert fault == "The tag is v0.3.0, and the version 0.2.0."


def test_the_placeholder_is_found_wherever_git_knows_a_file(facts: Any, tmp_path: Path) -> None:
    def git(*words: str) -> None:
        command = ["git", *words]  # that of the path
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "a.md").write_text(f"See https://{facts.PLACEHOLDER}/issues.\n")
    (tmp_path / "b.md").write_text("See https://example.org/issues.\n")
    (tmp_path / "unknown.md").write_text(facts.PLACEHOLDER)
    (tmp_path / "RELEASING.md").write_text(facts.PLACEHOLDER)
    git("add", "a.md", "b.md", "RELEASING.md")
    assert facts.with_placeholder(tmp_path) == ["a.md"]


def test_what_is_missing_in_a_wheel_or_too_much_is_named(contents: Any) -> None:
    tracked = {
        *("qortex_db/__init__.py", "qortex_db/py.typed", "qortex_db/_alembic"),
        *("alembic/env.py", "alembic/versions/0001_baseline.py", "tests/test_a.py"),
    }
    licences = [
        f"q.dist-info/licenses/{one}" for one in ("LICENSE", "qortex_db/sample/LICENSE.txt")
    ]
    whole = [
        *("qortex_db/__init__.py", "qortex_db/py.typed", "pytest_qortex_db.py"),
        *("qortex_db/_alembic/env.py", "qortex_db/_alembic/versions/0001_baseline.py"),
        *("q.dist-info/METADATA", *licences),
    ]
    assert contents.faults_of_wheel(whole, tracked) == []
    for name in whole:
        faults = contents.faults_of_wheel([one for one in whole if one != name], tracked)
        assert len(faults) == (name != "q.dist-info/METADATA"), name
    for name in ("tests/test_a.py", "qortex_db/__pycache__/a.pyc", "qortex_db/scratch.py"):
        assert contents.faults_of_wheel([*whole, name], tracked) == [f"too much: {name}"]
    assert contents.faults_of_wheel([*whole, whole[0]], tracked) == [f"twice: {whole[0]}"]


def test_what_is_missing_in_a_source_distribution_or_too_much_is_named(contents: Any) -> None:
    tracked = {"qortex_db/a.py", "alembic/env.py", "docs/index.md", "release/check.py"}
    whole = ["qortex_db/a.py", "qortex_db/_alembic/env.py", "alembic/env.py", "PKG-INFO"]
    assert contents.faults_of_sdist(whole, tracked) == []
    assert contents.faults_of_sdist(whole[1:], tracked) == ["missing: qortex_db/a.py"]
    faults = contents.faults_of_sdist([*whole, "docs/_build/index.html"], tracked)
    assert faults == ["too much: docs/_build/index.html"]
    faults = contents.faults_of_sdist([*whole, "release/check.py"], tracked)
    assert faults == ["not expected: release/check.py"]


def test_an_index_is_told_the_licences_and_links_that_lead_somewhere(
    facts: Any, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", METADATA, str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    folder = tmp_path / done.stdout.split()[-1]
    head, _, readme = (folder / "METADATA").read_text().partition("\n\n")
    assert "\nLicense-Expression: MIT AND PSF-2.0\n" in head
    assert "\nAuthor: qortex-db maintainers\n" in head
    assert "\nLicense-File: qortex_db/sample/LICENSE.txt\n" in head
    address = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"]
    links = re.findall(r"\]\(([^)\s]*)\)", readme)
    own = re.findall(r"\]\(([^)\s]*)\)", (ROOT / "README.md").read_text())
    assert len(links) == len(own) > 30
    version = facts.version()
    for link, was in zip(links, own, strict=True):
        if re.match(r"\w+:|#", was):
            assert link == was
            continue
        kind = "raw" if was.endswith((".png", ".svg")) else "blob"
        assert link == f"{address}/{kind}/v{version}/{was}"
        assert (ROOT / was.partition("#")[0]).exists(), was


def test_every_revision_is_in_the_guide() -> None:
    guide = (ROOT / "docs/upgrading.md").read_text()
    head = migrations.head_revision()
    series = [f"qortex_db_{n:04}" for n in range(1, int(head.rpartition("_")[2]) + 1)]
    assert [one for one in series if f"`{one}`" not in guide] == []


def test_actions_are_pinned_by_commits_and_nothing_has_more_rights_than_it_needs() -> None:
    texts = [path.read_text() for path in (ROOT / ".github/workflows").glob("*.yml")]
    used = re.findall(r"uses: (\S+)(.*)", "\n".join(texts))
    assert used
    for action, comment in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), action
    granted = re.findall(r"^ +([\w-]+): write", "\n".join(texts), re.MULTILINE)
    assert granted == ["id-token"]


def test_what_a_container_to_develop_in_runs_is_there() -> None:
    told = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    target = told["postCreateCommand"].removeprefix("make ").replace(".venv", "$(VENV)")
    assert f"\n{target}:" in (ROOT / "Makefile").read_text()


def test_hooks_run_programs_of_the_environment() -> None:
    entries = re.findall(r"entry: (\S+)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert entries
    missing = [one for one in entries if not shutil.which(one.replace(".venv/bin", str(BIN)))]
    assert missing == []


def test_the_steps_of_the_image_are_prepared_without_a_container(
    facts: Any, tmp_path: Path
) -> None:
    import container  # noqa: PLC0415 - a script's

    source = tmp_path / "source"
    source.mkdir()
    (command,) = container.prepare(ROOT, source, tmp_path / "env")
    assert f"-m venv {tmp_path}/env && " in command
    assert container.INSTALLED not in command
    assert (source / "pyproject.toml").is_file()
    assert (source / "alembic/versions/0001_baseline.py").is_file()
    assert (source / "qortex_db/py.typed").is_file()
    assert not (source / "qortex_db/_alembic").exists()
