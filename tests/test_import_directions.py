"""Who may import whom: read from the source with `ast`, function bodies and type-only imports told apart."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "fieldtune"
SOURCE = Path(__file__).resolve().parents[1] / "src" / PACKAGE

# The layers, from the top. A part imports parts of its own row or of rows below, never of one above.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("cli", "reference"),
    ("launch", "worker", "fitness_commands", "predict_command"),
    ("prepare", "training", "evaluation", "serving", "export"),
    ("planning",),  # the command plans, and a training says its plan
    ("data", "models"),
    ("checks", "evaluated_run", "composition", "file_check"),
    ("datasets", "tracking", "ranks", "half_precision", "adapter_checks"),
    ("loading", "command_words"),
    ("keys",),
    ("tasks",),
    ("config", "runs"),
    ("sources", "charts", "pages", "progress", "store"),
    ("records", "resources", "stopping"),
    ("errors",),
)
LAYER = {part: number for number, row in enumerate(LAYERS) for part in row}
STAGES = ("prepare", "training", "evaluation", "serving", "export")

# Losses are taken of encoded rows, rows are encoded by a model's tokenizer; no module of them waits for itself.
MUTUAL_PACKAGES = {frozenset({"data", "models"})}

HEAVY = ("torch", "transformers", "pytorch_lightning", "peft", "wandb", "matplotlib", "httpx")


@dataclass(frozen=True)
class Import:
    """One imported module. when: `import`, `call` (inside a function) or `types` (under TYPE_CHECKING)."""

    module: str  # who imports
    target: str  # what: the longest name that can be a module
    when: str
    line: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join([PACKAGE, *(part for part in parts if part != "__init__")])


MODULES = {name_of(path): path for path in sorted(SOURCE.rglob("*.py"))}


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports_in(module: str, node: ast.AST, when: str = "import") -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(module, alias.name, when, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0 and child.module, f"{module}:{child.lineno}: imports are absolute"
            for alias in child.names:
                inner = f"{child.module}.{alias.name}"
                yield Import(module, inner if inner in MODULES else child.module, when, child.lineno)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports_in(module, child, "call" if when == "import" else when)
        elif isinstance(child, ast.stmt) and is_type_checking(child):
            yield from imports_in(module, child, "types")
        else:
            yield from imports_in(module, child, when)


IMPORTS = [
    item for name, path in MODULES.items() for item in imports_in(name, ast.parse(path.read_text("utf-8"), str(path)))
]
OURS = [item for item in IMPORTS if item.target.partition(".")[0] == PACKAGE]


def part(module: str) -> str:
    """The package or module right under fieldtune."""
    return module.split(".")[1] if "." in module else ""


def top(module: str) -> str:
    return module.partition(".")[0]


def test_every_part_has_its_layer() -> None:
    found = {part(name) for name in MODULES} - {""}
    assert found == LAYER.keys(), "put a new part where it belongs in LAYERS"
    assert len(OURS) > 100  # the reader of imports works


def test_imports_go_down() -> None:
    assert [str(item) for item in OURS if LAYER[part(item.target)] < LAYER[part(item.module)]] == []


def test_neighbors_of_a_layer_do_not_import_each_other() -> None:
    wrong = [
        str(item)
        for item in OURS
        if part(item.module) != part(item.target)
        and LAYER[part(item.module)] == LAYER[part(item.target)]
        and frozenset({part(item.module), part(item.target)}) not in MUTUAL_PACKAGES
    ]
    assert wrong == []


def test_stages_do_not_know_each_other() -> None:
    wrong = [
        str(item)
        for item in OURS
        if part(item.module) in STAGES and part(item.target) in STAGES and part(item.module) != part(item.target)
    ]
    assert wrong == []


def test_packages_have_no_cycle() -> None:
    """Function bodies included."""
    graph: dict[str, set[str]] = {}
    for item in OURS:
        pair = (part(item.module), part(item.target))
        joined = ["data+models" if name in ("data", "models") else name for name in pair]
        if item.when != "types" and joined[0] != joined[1]:
            graph.setdefault(joined[0], set()).add(joined[1])
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a cycle of packages: {' -> '.join(error.args[1])}")


def test_modules_have_no_cycle_at_import() -> None:
    graph: dict[str, set[str]] = {}
    for item in OURS:
        if item.when == "import":
            graph.setdefault(item.module, set()).add(item.target)
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a cycle of modules: {' -> '.join(error.args[1])}")


def test_sources_and_tasks_know_nothing_of_models() -> None:
    below = {"sources": {"tasks", "config"}, "tasks": {"models", "data", "runs", "datasets", "tracking"}}
    wrong = [str(item) for item in OURS if part(item.target) in below.get(part(item.module), set())]
    assert wrong == []


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("hydra", {"composition", "launch"}),
        ("wandb", {"tracking"}),
        ("pytorch_lightning", {"training"}),
        ("peft", {"models"}),
        ("transformers", {"models"}),
        ("tiktoken", {"models"}),
        ("torch", {"training", "models", "data"}),
        ("matplotlib", {"charts"}),
        ("httpx", {"models"}),
        ("llguidance", {"models"}),
        ("fastapi", {"serving"}),
        ("uvicorn", {"serving"}),
        ("sqlalchemy", {"store"}),
        ("alembic", {"store"}),
    ],
)
def test_a_library_has_one_home(library: str, homes: set[str]) -> None:
    assert {part(item.module) for item in IMPORTS if top(item.target) == library} == homes


def test_heavy_libraries_are_imported_at_the_top_only_by_torch_code() -> None:
    early = {part(item.module) for item in IMPORTS if top(item.target) in HEAVY and item.when == "import"}
    assert early == {"training", "models", "data"}


def test_entry_points_only_call_the_launcher(root: Path) -> None:
    for stage in ("prepare", "train", "evaluate"):
        path = root / f"{stage}.py"
        found = [item.target for item in imports_in(stage, ast.parse(path.read_text("utf-8"), str(path)))]
        assert found == [f"{PACKAGE}.launch"]


LIGHT = [
    "import fieldtune.config",
    "import fieldtune.launch",
    "import fieldtune.worker",
    "import fieldtune.checks",
    "import fieldtune.composition",
    "import fieldtune.cli",
    "import fieldtune.prepare.stage",
    "from fieldtune import tasks; [tasks.get(name) for name in tasks.names()]",
]


def test_what_runs_before_the_work_is_light(root: Path) -> None:
    """Every statement in one process after another: a check of a configuration must not wait for torch."""
    lines = (f"{one}\nassert not (found := heavy & sys.modules.keys()), ({one!r}, found)" for one in LIGHT)
    code = "\n".join(["import sys", f"heavy = {set(HEAVY)}", *lines])
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
