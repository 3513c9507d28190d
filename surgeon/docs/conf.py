"""Configure Sphinx; ``python -m surgeon.docs`` calls it."""

from __future__ import annotations

from typing import Any

from surgeon.docs.rst import docstring
from surgeon.interfaces.distribution import surgeon_version

project = "surgeon"
author = "the authors of surgeon"
release = surgeon_version() or ""
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"surgeon {release}"
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "monokai"
smartquotes = False
html_show_copyright = False
highlight_language = "python"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_default_options = {"exclude-members": "model_config, model_post_init"}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
maximum_signature_line_length = 100
napoleon_use_ivar = True
napoleon_numpy_docstring = False


def setup(app: Any) -> None:
    """Escape docstrings before napoleon reads them: a selector such as ``layer*`` is not emphasis."""
    app.connect("autodoc-process-docstring", _escaped, priority=100)


def _escaped(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    lines[:] = docstring("\n".join(lines)).splitlines()
