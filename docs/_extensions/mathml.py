"""Mathematics as MathML, which browsers draw themselves: pages need no network and no script."""

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the renderer `mathml`, for `html_math_renderer`."""
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def to_mathml(latex: str, display: str) -> str:
    """The formula as MathML.

    Args:
      latex: without delimiters.
      display: `inline` or `block`.

    Raises:
      ExtensionError: if a command is not known, which the converter passes on as text.
    """
    found = convert(latex, display=display)
    if "\\" in found:
        raise ExtensionError(f"a command in this formula has no MathML: {latex}")
    return found


def _visit_inline(self, node: nodes.math) -> None:
    self.body.append(to_mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _visit_block(self, node: nodes.math_block) -> None:
    self.body.append(self.starttag(node, "div", CLASS="math"))
    self.body.append(to_mathml(node.astext(), "block"))
    self.body.append("</div>")
    raise nodes.SkipNode
