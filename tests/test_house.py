"""The house rules of the source, checked by parsing it.

There is no import circle. Only plots/ uses matplotlib, one place instantiates, a few places write files.
No object's state is assigned from outside. Only lightning_compat.py uses Lightning's insides. Few places ask
the clock.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

import pytest

from conftest import REPOSITORY

SOURCE = REPOSITORY / "src"
FILES = sorted((SOURCE / "glimpse").rglob("*.py"))
TREES = {path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text()) for path in FILES}
Found = list[tuple[str, int]]  # file and line


def module_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def nodes(tree: ast.AST, *, type_checking: bool = True) -> Iterator[ast.AST]:
    """All nodes, also inside functions; without `type_checking`, not what only a type checker reads."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and not type_checking:
            test = ast.unparse(child.test).rpartition(".")[2]
            if test == "TYPE_CHECKING":
                for other in child.orelse:
                    yield other
                    yield from nodes(other, type_checking=False)
                continue
        yield child
        yield from nodes(child, type_checking=type_checking)


def imports(tree: ast.AST, *, type_checking: bool) -> Iterator[tuple[str, int]]:
    """Every name that is imported, `from a import b` as a.b, with its line."""
    for node in nodes(tree, type_checking=type_checking):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def circle(trees: dict[str, ast.Module]) -> list[str]:
    """Modules that import each other in a ring, the first one again at the end; empty without one.

    An import inside a function counts: it hides a circle, it does not break it.
    """
    own = {module_of(file) for file in trees}
    graph: dict[str, set[str]] = {}
    for file, tree in trees.items():
        names = [name for name, _ in imports(tree, type_checking=False)]
        found = {name if name in own else name.rpartition(".")[0] for name in names}
        graph[module_of(file)] = found & own - {module_of(file)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_a_circle_is_found_wherever_it_is_imported() -> None:
    one = ast.parse("def late():\n    from glimpse import two")
    only_types = ast.parse("if TYPE_CHECKING:\n    import glimpse.one")
    other = ast.parse("from glimpse.one import late")
    assert circle({"glimpse/one.py": one, "glimpse/two.py": only_types}) == []
    assert set(circle({"glimpse/one.py": one, "glimpse/two.py": other})) == {
        "glimpse.one",
        "glimpse.two",
    }


def test_no_import_circle() -> None:
    assert circle(TREES) == []


def outside(found: Found, *allowed: str) -> Found:
    """What is in no file whose path begins with one of these."""
    return [(file, line) for file, line in found if not file.startswith(allowed)]


def imported(package: str) -> Found:
    return [
        (file, line)
        for file, tree in TREES.items()
        for name, line in imports(tree, type_checking=True)
        if name == package or name.startswith(f"{package}.")
    ]


def test_only_plots_import_matplotlib() -> None:
    assert imported("matplotlib")
    assert outside(imported("matplotlib"), "glimpse/plots/") == []


def test_only_one_place_instantiates() -> None:
    """As `hydra.utils.instantiate`, `utils.instantiate` or, once imported, by name."""
    called = [
        (file, node.lineno)
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and name_of(node.func) in ("instantiate", "call")
    ]
    found = imported("hydra.utils") + called
    assert {file for file, _ in found} == {"glimpse/config/build.py"}
    assert len(called) == 1


def name_of(function: ast.expr) -> str:
    """The last part of what is called."""
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


@pytest.mark.parametrize("file", TREES)
def test_every_file_says_what_it_is_for(file: str) -> None:
    assert ast.get_docstring(TREES[file])


# Writing ------------------------------------------------------------------------------------------

WRITERS = (
    "glimpse/files.py",
    "glimpse/plots/save.py",
    # What is downloaded, unpacked or cached is made in a folder of its own, renamed once it is whole.
    "glimpse/data/cache.py",
    "glimpse/data/download.py",
    "glimpse/data/archives.py",
    "glimpse/data/sets/mnist.py",
    "glimpse/callbacks/frozen_features.py",  # features that are cached as images are
    "glimpse/runs/export.py",  # into the temporary path that its caller has from files.replacing
)
ATTRIBUTES = ("write_text", "write_bytes", "savefig", "imsave", "touch", "tofile", "savez")
MODE = {"open": 1, "fdopen": 1}  # which argument; of a path's own `open`, the one before


def is_write(call: ast.Call) -> bool:
    name = name_of(call.func)
    if isinstance(call.func, ast.Attribute) and name in ATTRIBUTES:
        return True
    if name not in MODE:
        return False
    is_method = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) not in (
        "io",
        "os",
        "gzip",
    )
    position = MODE[name] - is_method
    modes = [k.value for k in call.keywords if k.arg == "mode"] + call.args[position : position + 1]
    return any(
        isinstance(mode, ast.Constant) and set(str(mode.value)) & set("wax+") for mode in modes
    )


def replaced_paths(tree: ast.Module) -> dict[int, set[str]]:
    """For each line inside `with replacing(…) as path`, the names of those temporary paths."""
    found: dict[int, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.With):
            names = {
                ast.unparse(item.optional_vars)
                for item in node.items
                if isinstance(item.context_expr, ast.Call)
                and name_of(item.context_expr.func) == "replacing"
                and item.optional_vars is not None
            }
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                found.setdefault(line, set()).update(names)
    return found


def writes(trees: dict[str, ast.Module]) -> Found:
    """Files that are written in place, not under a temporary name that files.replacing gave."""
    found: Found = []
    for file, tree in trees.items():
        temporary = replaced_paths(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and is_write(node):
                written = ast.unparse(node.func).rpartition(".")[0]
                if written not in temporary.get(node.lineno, set()):
                    found.append((file, node.lineno))
    return found


@pytest.mark.parametrize(
    ("source", "is_found"),
    [
        ("path.write_text('')", True),
        ("open(path, 'w')", True),
        ("path.open('wb')", True),
        ("path.open(mode='a')", True),
        ("figure.savefig(path)", True),
        ("open(path)", False),
        ("path.open('rb')", False),
        ("write_text(path, '')", False),
        ("with replacing(path) as partial, partial.open('w') as file: pass", False),
        ("with replacing(path) as partial, path.open('w') as file: pass", True),
    ],
)
def test_a_write_is_recognised(source: str, is_found: bool) -> None:
    assert bool(writes({"one.py": ast.parse(source)})) is is_found


def test_only_a_few_places_write_files() -> None:
    assert writes(TREES)
    assert outside(writes(TREES), *WRITERS) == []


# State ---------------------------------------------------------------------------------------------

# Objects of libraries that are meant to be assigned to, whose attributes have names that ours have too.
CONFIGURATIONS = ("config", "changed", "finetune")  # of OmegaConf: data, not objects with behaviour
OF_LIBRARIES = (
    ("glimpse/data/processes.py", "taken.value"),  # a counter that processes share
    ("glimpse/models/pretrained.py", "layer.weight"),  # a layer of torch
    ("glimpse/one_pass.py", "module.training"),  # train() would change the modules inside too
    ("glimpse/sweeps/launching.py", "result.status"),  # Hydra's record of a job
)
PATCHES = ("glimpse/lightning_compat.py", "glimpse/lean_imports.py")  # files that change libraries


def own_attributes(trees: dict[str, ast.Module]) -> set[str]:
    """The names of the attributes of our classes."""
    classes = (n for tree in trees.values() for n in ast.walk(tree) if isinstance(n, ast.ClassDef))
    names = set()
    for node in (inner for one in classes for inner in ast.walk(one)):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names |= {node.attr} if ast.unparse(node.value) == "self" else set()
    return names


def set_from_outside(trees: dict[str, ast.Module]) -> list[tuple[str, str]]:
    """Attributes of our classes that are assigned to anything but `self` or `cls`."""
    own = own_attributes(trees)
    return [
        (file, ast.unparse(node))
        for file, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if node.attr in own and ast.unparse(node.value) not in ("self", "cls")
        if ast.unparse(node).partition(".")[0] not in CONFIGURATIONS
    ]


def test_an_assignment_from_outside_is_found() -> None:
    source = "class One:\n    size: int\n    def grow(self):\n        self.size = 2"
    assert set_from_outside({"one.py": ast.parse(source)}) == []
    assert set_from_outside({"one.py": ast.parse(f"{source}\n\nself.one.size += 1")})


def test_state_is_not_assigned_from_outside() -> None:
    found = [(file, text) for file, text in set_from_outside(TREES) if file not in PATCHES]
    assert set(found) <= set(OF_LIBRARIES)


# Lightning's insides ------------------------------------------------------------------------------

COMPAT = "glimpse/lightning_compat.py"
# Lightning's objects, by the names that they have here and inside each other.
LIGHTNING = ("trainer", "pl_module", "strategy", "logger", "fit_loop", "precision_plugin")
LOOPS = (
    "fit_loop",
    "epoch_loop",
    "val_loop",
    "validate_loop",
    "test_loop",
    "automatic_optimization",
)


def insides(trees: dict[str, ast.Module]) -> list[tuple[str, str]]:
    """Private attributes of Lightning's objects, its loops, and attributes of a Trainer that are set.

    `trainer.should_stop` may be set: Lightning documents it.
    """
    found: list[tuple[str, str]] = []
    for file, tree in trees.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute):
                continue
            owner = ast.unparse(node.value).rpartition(".")[2]
            is_private = node.attr.startswith("_") and owner in LIGHTNING
            is_set = isinstance(node.ctx, ast.Store) and owner == "trainer"
            if is_private or node.attr in LOOPS or node.attr.endswith("_connector") or is_set:
                found.append((file, ast.unparse(node)))
        found += [
            (file, name)
            for name, _ in imports(tree, type_checking=True)
            if name.startswith("lightning.") and any(p.startswith("_") for p in name.split("."))
        ]
    return [(file, text) for file, text in found if text != "trainer.should_stop"]


@pytest.mark.parametrize(
    "source",
    [
        "trainer._data_connector.attach()",
        "self.trainer._results",
        "trainer.fit_loop.epoch_loop",
        "loop = trainer.fit_loop",
        "trainer.datamodule = data",
        "from lightning.pytorch.trainer.states import _Hidden",
    ],
)
def test_insides_are_recognised(source: str) -> None:
    assert insides({"one.py": ast.parse(source)})


def test_only_lightning_compat_uses_lightnings_insides() -> None:
    found = insides(TREES)
    assert {file for file, _ in found} == {COMPAT}


# The clock ----------------------------------------------------------------------------------------

# The clock may be set back or forward at any time, so durations are monotonic, and no state of a run follows
# from times. Each of these files says why it asks.
CLOCK = (
    "time",
    "time_ns",
    "now",
    "today",
    "utcnow",
    "strftime",
    "st_mtime",
    "st_mtime_ns",
    "getmtime",
)
ASKS_THE_CLOCK = {
    "glimpse/runs/folder.py",  # runs of another machine, whose locks are not seen
    "glimpse/loggers/building.py",  # TensorBoard reads its files by the dates in their names
    "glimpse/found_checkpoint.py",  # the newest run, as a suggestion in a message
    "glimpse/runs/repeat.py",  # the name of a new run folder
    "glimpse/data/cache.py", "glimpse/data/cache_index.py",  # whether a file was changed
}  # fmt: skip


def test_few_places_ask_the_clock() -> None:
    found = {
        file
        for file, tree in TREES.items()
        for node in nodes(tree)
        if isinstance(node, ast.Attribute) and node.attr in CLOCK
    }
    assert found == ASKS_THE_CLOCK


def test_the_map_of_the_code_has_every_module() -> None:
    tops = {file.split("/")[1] for file in TREES if file.startswith("glimpse/")}
    packages = {f"{name}/" for name in tops if not name.endswith(".py")}
    modules = {name for name in tops if name.endswith(".py") and not name.startswith("__")}
    text = (REPOSITORY / "docs" / "design.md").read_text()
    assert not [name for name in sorted(packages | modules) if f"`{name}`" not in text]
