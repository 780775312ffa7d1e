"""The documentation as HTML, for the tests of its pages."""

from __future__ import annotations

import pytest

from support import site as sites


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> sites.Site:
    """Built once a run, whatever the number of its processes."""
    own = tmp_path_factory.getbasetemp()
    return sites.build(own.parent if own.name.startswith("popen-") else own)
