"""Sphinx's configuration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qortex_db import __version__

sys.path.insert(0, str(Path(__file__).parent))

from api_examples import by_name
from docutils.nodes import Text, literal_block

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "qortex-db"
author = "the qortex-db authors"
copyright = "2026, the qortex-db authors"  # noqa: A001 - Sphinx's name
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
# Parts of other pages.
exclude_patterns = [
    "_build",
    "performance/choosing_measured.md",
    "operations/grants.md",
    "operations/plan_tables.md",
]
html_theme = "furo"
html_title = f"qortex-db {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
# Fonts whose letters are 0.6 of their height wide, so that a line of a hundred fits its block.
_MONOSPACE = "Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace"
html_theme_options = {
    "navigation_with_keys": True,
    "light_css_variables": {
        "font-stack--monospace": _MONOSPACE,
        "code-font-size": "0.78rem",
    },
}
# What a console shows before what is typed, and the output, are not copied.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

autodoc_member_order = "bysource"
autodoc_typehints = "both"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 90
toc_object_entries_show_parents = "hide"
napoleon_use_ivar = True
napoleon_custom_sections = ["Source"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

nitpicky = True
nitpick_ignore_regex = [
    # Annotations name types of other projects, whose inventories a build would have to fetch.
    ("py:class", r".*"),
    ("py:obj", r"typing\..*"),
    ("py:exc", r"FilterError|DuplicateDocumentError"),
]

_EXAMPLES = by_name()


def add_example(
    _app: Sphinx, _what: str, name: str, _found: object, _options: object, lines: list[str]
) -> None:
    """Put a name's example below its docstring."""
    if code := _EXAMPLES.get(name):
        lines += ["", ".. code-block:: python", "", *(f"   {line}" for line in code.splitlines())]


def find_by_last_name(
    _app: Sphinx, env: BuildEnvironment, node: Any, text: nodes.TextElement
) -> nodes.reference | None:
    """Link what annotations and docstrings call by another path to where it is documented."""
    domain = env.domains.python_domain
    last = node["reftarget"].rpartition(".")[2]
    named = [name for name in domain.objects if name.rpartition(".")[2] == last]
    # Of the same last name, the one of the page's own module, or the package's.
    named.sort(key=lambda name: (not name.startswith(f"{node.get('py:module')}."), name.count(".")))
    if node.get("refdomain") != "py" or not named:
        return None
    return domain.resolve_xref(env, node["refdoc"], _app.builder, "obj", named[0], node, text)


def end_blocks_with_code(_app: Sphinx, page: nodes.document) -> None:
    """Leave out the empty lines at the end of a part of a file that a page shows."""
    for block in page.findall(literal_block):
        if block.rawsource == block.astext():
            block.rawsource = block.rawsource.rstrip()
            block.children = [Text(block.rawsource)]


def setup(app: Sphinx) -> None:
    """Connect what is above."""
    app.connect("doctree-read", end_blocks_with_code)
    app.connect("autodoc-process-docstring", add_example, priority=900)
    app.connect("missing-reference", find_by_last_name)
