"""Which module may import which, and what may not be used where; `-s` prints the house in numbers.

python -m pytest tests/test_architecture.py -s
"""

import ast
import functools
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Flags of `pip` and `docker`.
OF_OTHERS = {"--upgrade", "--shm"}
# From below: a module imports from its own group and from those before it.
GROUPS = ("core", "detector", "estimator", "commands", "experiments")
# What people import into programs of their own.
LIBRARY = GROUPS[:3]
# Packages that only commands may use.
OF_COMMANDS = ("absl", "tqdm", "psutil", "ray")
# Processes are the subject of these two: which are alive, and those that read images.
OF_PROCESSES = ("sgfr_jax.unfinished", "sgfr_jax.datasets.batches")
# The front page shows the whole method, and so lies above it.
FRONT = "sgfr_jax"


@functools.cache
def modules():
    """Every module's name and syntax tree."""
    found = {}
    for package in ("sgfr_jax", "experiments"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def group(name):
    if name.startswith("experiments"):
        return "experiments"
    for part in ("commands", "detector", "estimator"):
        if name == f"sgfr_jax.{part}" or name.startswith(f"sgfr_jax.{part}."):
            return part
    return "core"


def imported(tree):
    """The names that a module imports, late imports included, and where."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


@functools.cache
def graph():
    """The modules of ours that each imports."""
    known, edges = modules(), {}
    for name, tree in known.items():
        edges[name] = set()
        for wanted, _ in imported(tree):
            while wanted and wanted not in known:
                wanted = wanted.rpartition(".")[0]
            if wanted and wanted != name:
                edges[name].add(wanted)
    return edges


def circles():
    """Sets of modules that import each other, by Tarjan's algorithm."""
    index, low, stack, found = {}, {}, [], []

    def visit(name):
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph()[name]:
            if other not in index:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == index[name]:
            place = stack.index(name)
            if len(stack) - place > 1:
                found.append(sorted(stack[place:]))
            del stack[place:]

    for name in graph():
        if name not in index:
            visit(name)
    return found


@functools.cache
def floor(name):
    """How many modules of its own group lie below one, at most; where there is no circle."""
    below = [other for other in graph()[name] if group(other) == group(name)]
    return 1 + max(map(floor, below), default=0)


def test_imports_go_down():
    wrong = [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in others
        if name != FRONT and GROUPS.index(group(other)) > GROUPS.index(group(name))
    ]
    assert not wrong


def test_no_module_imports_itself_by_way_of_others():
    assert not circles()


def test_the_house_in_numbers(capsys):
    with capsys.disabled():
        print()
        for one in GROUPS:
            own = [name for name in modules() if group(name) == one]
            print(f"{one}: {len(own)} modules on {max(map(floor, own))} floors")


def test_nothing_is_used_where_it_may_not():
    wrong = []
    for name, tree in modules().items():
        packages = {wanted: wanted.split(".")[0] for wanted, _ in imported(tree)}
        private = [n for n in packages if n.startswith("jax._src") or packages[n] == "ctypes"]
        wrong += [f"{name} imports {n}" for n in private]
        if group(name) in LIBRARY and name not in OF_PROCESSES:
            wrong += [f"{name} imports {n}" for n, of in packages.items() if of in OF_COMMANDS]
            wrong += [f"{name}, line {line}: {what}" for line, what in _side_effects(tree)]
    assert not wrong


def _side_effects(tree):
    """Where a module compiles, prints or reads the environment; arguments may default to `jit`."""
    defaults = {
        id(inner)
        for node in ast.walk(tree)
        for outer in _defaults(node)
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        source = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if source == "os.environ" or (source == "jax.jit" and id(node) not in defaults):
            yield node.lineno, source
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
            yield node.lineno, "print"


def _defaults(node):
    """The defaults of a function's arguments, or of a class's fields."""
    if isinstance(node, ast.FunctionDef):
        return [default for default in (*node.args.defaults, *node.args.kw_defaults) if default]
    if isinstance(node, ast.ClassDef):
        return [of.value for of in node.body if isinstance(of, ast.AnnAssign) and of.value]
    return []


def test_no_message_below_the_commands_speaks_of_flags():
    """Those who call functions know arguments; `checking.as_flags` makes flags of these."""
    wrong = []
    for name, tree in modules().items():
        if group(name) not in LIBRARY:
            continue
        documented = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                flags = set(re.findall(r"(?<![\w-])--[a-z]\w+", node.value)) - OF_OTHERS
                if flags and id(node) not in documented:
                    wrong.append(f"{name}, line {node.lineno}: {flags}")
    assert not wrong
