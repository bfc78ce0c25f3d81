"""The shape of the code: which way imports point, what stays light, and how long files and functions may be."""

import ast
import re
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = ("rollout", "reward", "learner", "cluster")
"""In the order of the data: each may import those before it."""
ONLY_IN = {"ray": ("cluster/",), "vllm": ("rollout/engines/vllm.py",), "deepspeed": ("learner/",)}
"""Library -> where in the four packages it may be imported."""
HEAVY = {
    "torch",
    "ray",
    "vllm",
    "deepspeed",
    "transformers",
    "datasets",
    "pyarrow",
    "reasoning_gym",
    "math_verify",
}
LIGHT = ("types.py", "config.py", "errors.py")
"""Files that every process reads first, and that import none of HEAVY, directly or through each other."""
CONTRACT_ROOM = "types config errors columns run_files"
ORDERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "rollout": (
        (
            "episode_types",
            "repetition",
            "types errors value_problems",
            "config module_loading call_params",
            "children transfer sandbox endpoint",
            "episodes",
            "prompts",
            "engines",
            "leases rounds",
            "episode_desk",
            "worker",
        ),
    ),
    "reward": (
        (
            "types errors thought",
            "functions",
            "judging",
            "config",
            "components",
            "function_loading",
            "row_checks steps math code models children",
            "rules",
            "worker",
        ),
    ),
    "learner": (
        (
            "types metrics surrogate_config teacher",
            "objective",
            "config",
            "algorithm backend endpoint step_gate",
            "prepared model optimizer_step",
            "transfer",
            "saving",
            "updates step_report",
            "worker",
        ),
    ),
    "cluster": (
        (
            "types config errors columns run_files",
            "configuration",
            "record",
            "fleet",
            "groups",
            "weights",
            "loop trying",
            "commands",
            "cli",
        ),
        ("types config errors columns run_files", "configuration", "record", "dashboard", "notebook commands", "cli"),
    ),
    "cluster/dashboard": (("records", "files figures", "index", "views selection", "doctor", "web", "exports"),),
}
"""Folder -> the orders of its rooms (folders and files). A room imports those before it in one of the orders; rooms of
one string stand side by side and do not know each other. cluster/ is two towers on one ground, joined at the commands:
the page does not know the loop."""
PENDING: dict[str, str] = {}
"""`file -> module` that points back, with the reason why it still does. Shrinks only, and ends empty."""
CONTRACT = (
    "learner/metrics.py",
    "learner/objective.py",
    "learner/surrogate_config.py",
    "learner/teacher.py",
    "cluster/columns.py",
    "cluster/run_files.py",
    "cluster/record/metric_list.py",
)
"""What readers of a run share with its writers besides: as light."""
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60
MAX_MEDIAN_LINES = 130
"""Of the files with code in the four packages."""

STATIC = ROOT / "cluster" / "dashboard" / "static"
SCRIPTS = sorted(path for path in STATIC.rglob("*.js") if "vendor" not in path.parts)
SOURCES = sorted(path for stage in STAGES for path in (ROOT / stage).rglob("*.py"))
FILES = [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """(module, line) of every import, those inside functions and under TYPE_CHECKING included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield ("." * node.level) + (node.module or ""), node.lineno


def files_imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """(file, line) of every import of our own, as in ("reward/types.py", 3); packages themselves are left out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:  # a name may be a file of the package
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for module in modules:
            name = module.replace(".", "/") + ".py"
            if module.split(".")[0] in STAGES and (ROOT / name).is_file():
                yield name, node.lineno


def comes_before(first: str, second: str, orders: Iterable[tuple[str, ...]]) -> bool:
    """Whether one of the orders has room `first` on a floor below that of room `second`."""
    floors = ({room: floor for floor, rooms in enumerate(order) for room in rooms.split()} for order in orders)
    return any(first in floor and second in floor and floor[first] < floor[second] for floor in floors)


def room_problems(name: str, source: str) -> list[str]:
    """Imports of the file `name` that point back to a room which comes after its own, or stands beside it."""
    problems = []
    for other, line in files_imported(ast.parse(source)):
        for folder, orders in ORDERS.items():
            rooms = [path.removeprefix(f"{folder}/").split("/")[0].removesuffix(".py") for path in (other, name)]
            inside = other.startswith(f"{folder}/") and name.startswith(f"{folder}/")
            if inside and rooms[0] != rooms[1] and not comes_before(rooms[0], rooms[1], orders):
                problems.append(f"{name}:{line}: {rooms[1]}/ imports {other}; in {folder}/ it does not stand before it")
    return problems


def cycles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Circles of files that import each other, each once, as the way from a file back to itself."""
    found, done = [], set()

    def walk(name: str, way: list[str]) -> None:
        if name in way:
            found.append([*way[way.index(name) :], name])
        elif name not in done:
            for other in sorted(imports.get(name, ())):
                walk(other, [*way, name])
            done.add(name)

    for name in sorted(imports):
        walk(name, [])
    return found


def import_problems(name: str, source: str) -> list[str]:
    """What is wrong with the imports of the file `name`."""
    problems = []
    stage = name.split("/")[0]
    for module, line in imported(ast.parse(source)):
        top = module.split(".")[0]
        if module.startswith("."):
            problems.append(f"{name}:{line}: relative import; write the whole name, so that its stage is seen")
        elif top in STAGES and STAGES.index(top) > STAGES.index(stage):
            problems.append(f"{name}:{line}: {stage} imports {module}, which comes after it")
        elif not name.startswith(ONLY_IN.get(top, (name,))):
            problems.append(f"{name}:{line}: imports {top}, allowed only in {', '.join(ONLY_IN[top])}")
    return problems


def top_level_modules(path: Path, seen: set[Path]) -> Iterator[tuple[str, Path]]:
    """Modules loaded by importing a file, with the file that imports each; our own files are followed."""
    if path in seen or not path.exists():
        return
    seen.add(path)
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        for module, _ in imported(node) if isinstance(node, (ast.Import, ast.ImportFrom)) else ():
            if module.split(".")[0] in STAGES:
                yield from top_level_modules(ROOT / (module.replace(".", "/") + ".py"), seen)
            else:
                yield module, path


def length_problems(name: str, source: str) -> list[str]:
    """Files and functions that are too long; `# long: reason` on the line of `def`, or before it, allows a function."""
    lines = source.splitlines()
    problems = []
    if len(lines) > MAX_FILE_LINES:
        problems.append(f"{name}: {len(lines)} lines, allowed: {MAX_FILE_LINES}; give it a collaborator")
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        assert node.end_lineno is not None
        length = node.end_lineno - node.lineno + 1
        reason = "\n".join(lines[max(0, node.lineno - 2) : node.lineno])
        if length > MAX_FUNCTION_LINES and not re.search(r"# long: \S", reason):
            problems.append(f"{name}:{node.lineno}: {node.name} has {length} lines, allowed: {MAX_FUNCTION_LINES}")
    return problems


def script_problems(name: str, source: str) -> list[str]:
    """Scripts and functions in them that are too long. A function ends with the brace that is indented as it is."""
    lines = source.splitlines()
    problems = []
    if len(lines) > MAX_FILE_LINES:
        problems.append(f"{name}: {len(lines)} lines, allowed: {MAX_FILE_LINES}; give it a collaborator")
    for start, line in enumerate(lines):
        begins = re.search(r"^( *)(.*\bfunction\b.*|.*=>|(?:(?:static|async|get|set) )*#?\w+\(.*\)) \{$", line)
        if begins is None or begins[2].startswith(("if (", "for (", "while (", "switch (")):
            continue
        ends = (at for at in range(start + 1, len(lines)) if lines[at].startswith(begins[1] + "}"))
        length = next(ends, start) - start + 1
        reason = "\n".join(lines[max(0, start - 1) : start + 1])
        if length > MAX_FUNCTION_LINES and not re.search(r"// long: \S", reason):
            problems.append(f"{name}:{start + 1}: a function of {length} lines, allowed: {MAX_FUNCTION_LINES}")
    return problems


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_upstream_and_libraries_stay_where_they_belong(path: Path) -> None:
    assert import_problems(name_of(path), path.read_text(encoding="utf-8")) == []


def test_rooms_import_only_what_stands_before_them() -> None:
    problems = [problem for path in SOURCES for problem in room_problems(name_of(path), path.read_text("utf-8"))]
    of = {problem: re.sub(r":\d+: \S+ imports (\S+);.*", r" -> \1", problem) for problem in problems}
    assert [problem for problem in problems if of[problem] not in PENDING] == []
    assert sorted(set(PENDING) - set(of.values())) == [], "mended: strike it off the list"


@pytest.mark.parametrize("folder", ORDERS)
def test_every_room_has_its_place_in_the_order(folder: str) -> None:
    ordered = {room for order in ORDERS[folder] for rooms in order for room in rooms.split()}
    there = {path.relative_to(ROOT / folder).parts[0].removesuffix(".py") for path in (ROOT / folder).rglob("*.py")}
    assert ordered == there - {"__init__"}


def test_no_file_imports_itself_through_others() -> None:
    trees = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert cycles({name: {other for other, _ in files_imported(tree)} for name, tree in trees.items()}) == []


def test_half_of_the_files_are_short() -> None:
    lines = [len(path.read_text("utf-8").splitlines()) for path in SOURCES if path.name != "__init__.py"]
    assert statistics.median(lines) <= MAX_MEDIAN_LINES


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if path.name in LIGHT or name_of(path) in CONTRACT], ids=name_of
)
def test_types_configs_and_errors_load_nothing_heavy(path: Path) -> None:
    loaded = [(module, name_of(where)) for module, where in top_level_modules(path, set())]
    assert [pair for pair in loaded if pair[0].split(".")[0] in HEAVY] == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_fit_in_view(path: Path) -> None:
    assert length_problems(name_of(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_scripts_and_their_functions_fit_in_view(path: Path) -> None:
    assert script_problems(name_of(path), path.read_text(encoding="utf-8")) == []


def files_listed(text: str) -> list[str]:
    """The files that ARCHITECTURE.md lists: lines "- `name.py` what" below the name of their folder."""
    folder, names = "", []
    for line in text.splitlines():
        if heading := re.match(r"(?:### |- \*\*)`([\w/]+)/`", line):
            folder = heading[1]
        elif entry := re.match(r" *- `([\w/]+\.py)` \S", line):
            names.append(f"{folder}/{entry[1]}")
    return names


def test_every_file_is_named_in_the_architecture_and_every_name_is_a_file() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    listed = files_listed(text)
    there = {name_of(path) for path in SOURCES if path.name != "__init__.py"}
    assert len(listed) == len(set(listed)), "a file is listed once"
    assert sorted(there - set(listed)) == [], "files without a line in their folder's list in ARCHITECTURE.md"
    assert sorted(set(listed) - there) == [], "lines in ARCHITECTURE.md without a file"
    named = set(re.findall(rf"`((?:{'|'.join(STAGES)})/[\w/]+\.py)`", text))
    assert sorted(named - there) == [], "names in ARCHITECTURE.md that are no files"


def test_the_checks_find_what_they_look_for() -> None:
    assert import_problems("rollout/a.py", "import reward.types\n") == [
        "rollout/a.py:1: rollout imports reward.types, which comes after it"
    ]
    assert "relative import" in import_problems("reward/a.py", "from . import types\n")[0]
    late = "def f():\n    from vllm import LLM\n"
    assert import_problems("rollout/engines/vllm.py", late) == []
    assert import_problems("rollout/worker.py", late) == [
        "rollout/worker.py:2: imports vllm, allowed only in rollout/engines/vllm.py"
    ]
    assert len(import_problems("learner/a.py", "import ray.util\nimport deepspeed\n")) == 1
    assert import_problems("cluster/a.py", "import ray\nimport learner.types\n") == []
    long = "def f():\n" + "    x = 1\n" * 60
    assert length_problems("a.py", long) == ["a.py:1: f has 61 lines, allowed: 60"]
    assert length_problems("a.py", f"# long: a table\n{long}") == []
    assert length_problems("a.py", "\n" * 401) == ["a.py: 401 lines, allowed: 400; give it a collaborator"]


def test_the_checks_of_rooms_and_scripts_find_what_they_look_for() -> None:
    back = "def f():\n    from cluster.loop.controller import Controller\n"
    assert room_problems("cluster/groups/a.py", back) == [
        "cluster/groups/a.py:2: groups/ imports cluster/loop/controller.py; in cluster/ it does not stand before it"
    ]
    assert room_problems("cluster/commands/a.py", back) == []
    assert len(room_problems("cluster/dashboard/views/a.py", back)) == 1
    assert len(room_problems("cluster/loop/a.py", "from cluster.dashboard import records\n")) == 1
    assert room_problems("cluster/commands/a.py", "import cluster.dashboard.records\n") == []
    assert len(room_problems("cluster/dashboard/files/a.py", "import cluster.dashboard.figures.series\n")) == 1
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c", "a"]]
    assert cycles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    short = "export function f() {\n" + "  x();\n" * 58 + "}\n"
    assert script_problems("a.js", short + short) == []
    assert script_problems("a.js", short.replace("x();", "x();\n  y();")) == [
        "a.js:1: a function of 118 lines, allowed: 60"
    ]
    assert script_problems("a.js", "\n" * 401) == ["a.js: 401 lines, allowed: 400; give it a collaborator"]
    assert files_listed("### `a/` x\n\n- `b.py` y\n- **`a/c/`** z\n  - `d.py` y\n  - `e/f.py` y\n") == [
        "a/b.py",
        "a/c/d.py",
        "a/c/e/f.py",
    ]
