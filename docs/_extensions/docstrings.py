"""Renders the docstrings as they are written: single backticks, indented code, field comments."""

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap

from docutils import nodes
from docutils.parsers.rst import roles
from sphinx.application import Sphinx
from sphinx.domains.python import PyXRefRole
from sphinx.util.nodes import make_refnode

_NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
_DOCUMENTED = ("class", "exception", "function", "module")


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the role `code_or_name`, for `default_role`, and what docstrings go through."""
    roles.register_local_role("code_or_name", code_or_name)
    app.connect("missing-reference", find_by_ending)
    # Before napoleon, which runs at 500.
    app.connect("autodoc-process-docstring", _process, priority=400)
    app.connect("autodoc-skip-member", _skip_field)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def code_or_name(role, rawtext, text, lineno, inliner, options=None, content=()):
    """What stands in single backticks: a link if it names something of ours, code in any case."""
    if _NAME.fullmatch(text):
        return PyXRefRole()("py:obj", rawtext, text, lineno, inliner, options or {}, content)
    return [nodes.literal(rawtext, nodes.unescape(text), classes=["code"])], []


def find_by_ending(app, env, node, contnode):
    """Links `samplers.uniform` or `sgfr_jax.uniform` to the one documented name that ends so."""
    if node.get("refdomain") != "py" or node.get("reftype") != "obj":
        return None
    target, meant = node["reftarget"], None
    ending = "." + target
    if target.startswith("sgfr_jax."):
        meant = _resolve(target)
        # A front page may show a function under another name than the module that defines it.
        ending = "." + getattr(meant, "__name__", target.removeprefix("sgfr_jax."))
    found = {
        name: entry
        for name, entry in env.domains.python_domain.objects.items()
        if name.endswith(ending) and entry.objtype in _DOCUMENTED and not entry.aliased
    }
    if meant is not None:
        found = {n: entry for n, entry in found.items() if _resolve(n) is meant}
    if len(found) != 1:
        return None
    ((name, entry),) = found.items()
    return make_refnode(
        app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, title=name
    )


def _resolve(name: str) -> object:
    """What a module's attribute is, by its dotted name; None if there is none.

    Not `pkgutil.resolve_name`: of a function that is named as its module it gives the module.
    """
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute, None)
    except ImportError:
        return None


def mark_code(lines: list[str]) -> list[str]:
    """Marks blocks that are indented after a colon as code, which reStructuredText wants said."""
    marked = list(lines)
    for i in range(len(lines) - 2):
        line, blank, after = lines[i : i + 3]
        if not line.rstrip().endswith(":") or line.rstrip().endswith("::") or blank.strip():
            continue
        if after.strip() and _indentation(after) > _indentation(line):
            marked[i] = line.rstrip() + ":"
    return marked


def keep_returns_whole(lines: list[str]) -> list[str]:
    """Says that what is returned has no type in front, or napoleon takes for one what is not."""
    kept = list(lines)
    for i in range(len(lines) - 1):
        if lines[i].strip() in ("Returns:", "Yields:"):
            kept[i + 1] = _indentation(lines[i + 1]) * " " + ": " + lines[i + 1].lstrip()
    return kept


def field_comments(source: str) -> dict[str, str]:
    """What the comments beside or above the fields of a class say of them.

    Args:
      source: of the class.

    Returns:
      Field to comment, in order; "" for a field without one.
    """
    lines = textwrap.dedent(source).splitlines()
    (class_,) = ast.parse("\n".join(lines)).body
    found = {}
    for statement in class_.body:
        if not isinstance(statement, ast.AnnAssign):
            continue
        said, above = [], statement.lineno - 2
        while lines[above].lstrip().startswith("#"):
            said.insert(0, lines[above].strip().lstrip("# "))
            above -= 1
        beside = lines[statement.end_lineno - 1].encode()[statement.end_col_offset :].decode()
        if beside.strip().startswith("#"):
            said.append(beside.strip().lstrip("# "))
        found[statement.target.id] = " ".join(said)
    return found


def quote_shape(comment: str) -> str:
    """The comment with a shape in front as code: "[N, D] float32" begins with one."""
    return re.sub(r"^\[[^\]]*\]", r"`\g<0>`", comment)


def _process(app, what, name, obj, options, lines: list[str]) -> None:
    if inspect.isclass(obj) and (hasattr(obj, "_fields") or dataclasses.is_dataclass(obj)):
        comments = field_comments(inspect.getsource(obj))
        if any(comments.values()):
            lines += ["", "Attributes:"]
            lines += [f"  {field}: {quote_shape(said)}" for field, said in comments.items()]
    lines[:] = mark_code(keep_returns_whole(lines))


def _skip_field(app, what, name, obj, skip, options) -> bool | None:
    """Leaves out "Alias for field number 0": fields stand in the table of their class."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip())
