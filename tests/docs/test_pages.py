"""The documentation: everything public is in it, and it builds without a warning."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import sgfr_jax
import sgfr_jax.detector

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Modules that say nothing to a user.
INTERNAL = {
    f"sgfr_jax.{name}"
    for name in ("checked_json", "checks", "commands", "locks", "names", "unfinished", "version")
}
# Lists of names, each of which is described with the module that defines it.
FRONT_PAGES = (sgfr_jax, sgfr_jax.detector)


def listed_modules():
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    return re.findall(r"^   (sgfr_jax[\w.]*)$", text, re.MULTILINE)


def public_names(module):
    """What automodule documents: `__all__`, or what the module itself defines."""
    if hasattr(module, "__all__"):
        return module.__all__
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def test_every_module_is_listed_once():
    listed = listed_modules()
    top, stages = (
        {f"{page.__name__}.{module.name}" for module in pkgutil.iter_modules(page.__path__)}
        for page in FRONT_PAGES
    )
    assert len(set(listed)) == len(listed)
    missing = top - INTERNAL - set(listed)
    assert not missing, f"add a line to docs/api.md for each of {sorted(missing)}"
    assert set(listed) <= top | stages | {"sgfr_jax"}


@pytest.mark.parametrize("page", FRONT_PAGES, ids=lambda page: page.__name__)
def test_every_name_of_a_front_page_is_in_a_listed_module(page):
    modules = [importlib.import_module(name) for name in listed_modules()]
    documented = {
        id(getattr(module, name))
        for module in modules
        if module not in FRONT_PAGES
        for name in public_names(module)
    }
    for name in page.__all__:
        value = getattr(page, name)
        assert id(value) in documented or isinstance(value, str), name


def test_everything_listed_has_a_docstring():
    # automodule leaves out what has none.
    for module in map(importlib.import_module, listed_modules()):
        assert module.__doc__
        for name in public_names(module):
            value = getattr(module, name)
            if inspect.isfunction(value) or inspect.isclass(value):
                assert value.__doc__ and not value.__doc__.startswith(f"{name}("), name


def test_pages_name_only_what_exists():
    flags = importlib.import_module("sgfr_jax.commands.flags.options").flags.FLAGS
    known = {name for module in flags.flags_by_module_dict().values() for name in module}
    known = {flag.name for flag in known}
    for path in (ROOT / "sgfr_jax" / "commands").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        known |= set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source))
        known |= set(re.findall(r'add_argument\("--(\w+)"', source))
    for page in ("other_libraries.md", "index.md", "method.md"):
        text = (DOCS / page).read_text(encoding="utf-8")
        for module, name in re.findall(r"\{obj\}`~?(sgfr_jax(?:\.\w+)*)\.(\w+)`", text):
            assert hasattr(importlib.import_module(module), name), f"{module}.{name} in {page}"
        for row in text.splitlines():
            # In tables of options ours are in the second column.
            ours = row.split("|")[2] if row.startswith("|") and row.count("|") > 3 else ""
            for flag in re.findall(r"--(\w+)", ours):
                assert flag.removeprefix("no") in known or flag in known, f"--{flag} in {page}"


def test_pages_use_names_of_the_front_pages():
    aliases = {"sgfr": sgfr_jax, "stages": sgfr_jax.detector}
    for page in (ROOT / "README.md", DOCS / "index.md", DOCS / "in_python.md"):
        used = re.findall(r"\b(sgfr|stages)\.(\w+)", page.read_text(encoding="utf-8"))
        assert used
        for alias, name in used:
            assert name in aliases[alias].__all__, f"{alias}.{name} in {page.name}"


def test_the_readme_is_short_and_leads_to_pages_that_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 160
    for place in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / place).is_file(), place


def test_the_first_lines_run(rng):
    text = (DOCS / "index.md").read_text(encoding="utf-8")
    _, block = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {"features": rng.normal(size=(5, 16, 16, 64)).astype(np.float32), "D": 64}
    exec(compile(block, "index.md", "exec"), names)
    assert names["maps"].shape == (5, 256, 256)
    # Noise is not mimicked, but an atom is: by itself.
    scores = np.asarray(names["scores"])
    atoms = np.asarray(names["bank"].indices)
    assert scores[atoms].max() < 0.1 * np.delete(scores, atoms).mean()


@pytest.fixture(scope="module")
def extension():
    pytest.importorskip("sphinx", reason="the docs extra is not installed")
    sys.path.insert(0, str(DOCS / "_extensions"))
    yield importlib.import_module
    sys.path.remove(str(DOCS / "_extensions"))


@pytest.mark.slow
def test_field_comments(extension):
    source = '''
    class Made(NamedTuple):
        """Two fields."""

        first: jax.Array  # [N]: beside
        # [M] above,
        # in two lines.
        second: dict[str, int] = {"#": 1}  # and beside
        third: int
    '''
    assert extension("docstrings").field_comments(source) == {
        "first": "[N]: beside",
        "second": "[M] above, in two lines. and beside",
        "third": "",
    }


@pytest.mark.slow
def test_code_after_a_colon_is_marked(extension):
    lines = ["A tour:", "", "    x = 1", "", "Args:", "  x: one", "", "Said:: ", "", "  kept"]
    marked = extension("docstrings").mark_code(lines)
    assert marked == ["A tour::", *lines[1:]]


@pytest.mark.slow
def test_what_is_returned_has_no_type_in_front(extension):
    lines = [
        "Args:",
        "  x: one",
        "Returns:",
        "  A `Bank` of atoms: that of row `r` is first.",
        "  More.",
    ]
    kept = extension("docstrings").keep_returns_whole(lines)
    assert kept == [*lines[:3], "  : A `Bank` of atoms: that of row `r` is first.", "  More."]
    napoleon = pytest.importorskip("sphinx.ext.napoleon")
    config = napoleon.Config(napoleon_use_rtype=True)
    shown = str(napoleon.GoogleDocstring("\n".join(kept), config))
    assert ":returns: A `Bank` of atoms: that of row" in shown and ":rtype:" not in shown


@pytest.mark.slow
def test_formulas_become_mathml(extension):
    errors = pytest.importorskip("sphinx.errors")
    found = extension("mathml").to_mathml(r"\frac{w}{\mathbf 1^\top w}", "inline")
    assert "<mfrac>" in found and 'display="inline"' in found
    with pytest.raises(errors.ExtensionError, match="unheardof"):
        extension("mathml").to_mathml(r"\unheardof{x}", "inline")


class _Links(HTMLParser):
    """What a page loads as it is shown, and where it leads."""

    def __init__(self):
        super().__init__()
        self.loaded, self.anchors = [], set()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors.add(attributes.get("id"))
        if tag in ("script", "img") or (tag == "link" and attributes.get("rel") == "stylesheet"):
            self.loaded.append(attributes.get("src") or attributes.get("href"))


@pytest.mark.slow
def test_the_pages_build_without_warnings_and_need_no_network(tmp_path):
    for module in ("sphinx", "myst_nb", "furo", "latex2mathml"):
        pytest.importorskip(module, reason="the docs extra is not installed")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", "-d", tmp_path / "trees"]
    built = subprocess.run(
        [str(part) for part in (*command, DOCS, tmp_path / "html")],
        cwd=ROOT, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    pages = {}
    for path in (tmp_path / "html").rglob("*.html"):
        pages[path] = _Links()
        pages[path].feed(path.read_text(encoding="utf-8"))
    for path, page in pages.items():
        loaded = [place for place in page.loaded if place]
        assert not [place for place in loaded if "//" in place], path
    api = set().union(*(page.anchors for page in pages.values()))
    for module in map(importlib.import_module, listed_modules()):
        if module in FRONT_PAGES:
            continue
        functions = [
            name
            for name in public_names(module)
            if inspect.isfunction(getattr(module, name)) or inspect.isclass(getattr(module, name))
        ]
        assert functions and not [n for n in functions if f"{module.__name__}.{n}" not in api]
    for page in FRONT_PAGES:
        path = tmp_path / "html" / "generated" / f"{page.__name__}.html"
        front = path.read_text(encoding="utf-8")
        for value in (getattr(page, name) for name in page.__all__):
            if not isinstance(value, str):  # each name leads to where it is described
                package = value.__module__.rsplit(".", 1)[0]
                assert re.search(rf'href="[^"#]*#{package}[\w.]*\.{value.__name__}"', front)
    tutorial = (tmp_path / "html" / "tutorial.html").read_text(encoding="utf-8")
    assert tutorial.count("<img") >= 3 and "image AUROC" in tutorial
    method = (tmp_path / "html" / "method.html").read_text(encoding="utf-8")
    assert method.count("<math") > 50 and "$" not in re.sub(r"<[^>]*>", "", method)
