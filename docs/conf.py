"""Sphinx's configuration."""

from qortex_db import __version__

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
# Fonts whose letters are of one width, 0.6 of their height, so that a line of a hundred fits.
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
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_use_ivar = True
napoleon_custom_sections = ["Source"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

nitpicky = True
nitpick_ignore_regex = [
    # Annotations name types of other projects, whose inventories a build would have to fetch, and
    # our own aliases by their bare names.
    ("py:class", r"(?!qortex_db\.).*"),
    ("py:exc", r"FilterError|DuplicateDocumentError"),
    ("py:class", r"qortex_db\.(database|view)\.T|.*\.IdT"),
    # What is only taken is described where it is taken.
    ("py:class", r".*\.(AllContexts|ArmLike|_Asked|EdgeStatsLike|Frame|Settings|SupportsArray)"),
]
