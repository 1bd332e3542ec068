"""How the site is built: ``make docs``. A warning is an error."""

import sys
import tomllib
from pathlib import Path

_ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(Path(__file__).parent))

project = "ctinv"
author = "The ctinv authors"
release = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
version = release
project_copyright = author

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "generated",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "_generated"]
# Pages that are included elsewhere begin with a second-level heading.
suppress_warnings = ["myst.header"]
root_doc = "index"
# Every heading down to this level can be linked to: [text](page.md#the-heading).
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"ctinv {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
# The fonts of the reader's system and no search service: the site works from disk, with the network off.
html_theme_options = {"top_of_page_buttons": []}
