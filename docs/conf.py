"""How Sphinx builds the site: ``sphinx-build -W docs OUT``, offline; see CONTRIBUTING.md."""

import re
import sys
import unicodedata
from importlib.metadata import version as installed_version
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util.logging import getLogger
from sphinx.writers.html5 import HTML5Translator

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import generated_pages  # noqa: E402 - stands beside this file

logger = getLogger(__name__)

project = "normalisr-dask"
release = version = installed_version(project)
html_title = f"{project} {release}"
html_theme = "furo"
html_show_copyright = False
html_show_sphinx = False

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
exclude_patterns = ["generated/parts"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "none"  # numpydoc's sections say more
autodoc_member_order = "bysource"
autosummary_ignore_module_all = False
numpydoc_class_members_toctree = False
numpydoc_show_inherited_class_members = False

html_math_renderer = "mathml"


#: What docstrings write as people read it, for LaTeX: an accent stands after its letter.
ACCENTS = {"\u0302": r"\hat", "\u0303": r"\tilde"}
SIGNS = str.maketrans({"−": "-", "½": r"\frac{1}{2}", "·": r"\cdot "})


def as_mathml(page: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
    """Write an equation as MathML, which browsers draw by themselves: no script, nothing from elsewhere."""
    text = unicodedata.normalize("NFD", node.astext().translate(SIGNS))
    latex = re.sub(f"(.)([{''.join(ACCENTS)}])", lambda found: f"{{{ACCENTS[found[2]]} {found[1]}}}", text)
    try:
        page.body.append(str(tex2mathml(latex, as_block=isinstance(node, nodes.math_block))))
    except MathError as error:
        logger.warning("%s in the equation %s", error, latex, location=node)
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Have equations written so; Sphinx calls this."""
    app.add_html_math_renderer("mathml", (as_mathml, None), (as_mathml, None))


generated_pages.write(HERE / "generated" / "parts")
