"""How Sphinx builds the site: ``sphinx-build -W docs OUT``, offline; see CONTRIBUTING.md."""

import shutil
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import generated_pages  # noqa: E402 - stands beside this file

project = "normalisr-dask"
release = version = installed_version(project)
html_title = f"{project} {release}"
html_theme = "furo"
html_show_copyright = False
html_show_sphinx = False

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.mathjax"]
exclude_patterns = ["generated/parts"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "none"  # numpydoc's sections say more
autodoc_member_order = "bysource"
autosummary_ignore_module_all = False
numpydoc_class_members_toctree = False
numpydoc_show_inherited_class_members = False

# names that are gone would stay
shutil.rmtree(HERE / "generated", ignore_errors=True)
generated_pages.write(HERE / "generated" / "parts")
