"""How Sphinx builds the documentation: `python -m sphinx -W -b html docs docs/_build`."""

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_extensions")]

from sgfr_jax.version import __version__  # noqa: E402  # after the path that it lies on

# What was written for modules that are gone by now would be pages that nothing leads to.
shutil.rmtree(HERE / "generated", ignore_errors=True)

project = "sgfr_jax"
release = version = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_nb",
    "docstrings",
    "mathml",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "jupyter_execute"]  # the second is where the notebook ran

# Docstrings: Google's sections, single backticks, shapes instead of types.
default_role = "code_or_name"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
maximum_signature_line_length = 88
# An `__all__` is the list of a package's names, wherever they are defined.
autosummary_ignore_module_all = False
autosummary_imported_members = False

# Pages: Markdown with mathematics in dollars; the notebook runs when the pages are built.
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True

html_theme = "furo"
html_title = f"sgfr_jax {release}"
html_math_renderer = "mathml"
html_copy_source = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
