"""The shape of the code: which way imports point, what stays light, and how long files and functions may be."""

import ast
import re
from collections.abc import Iterator
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
    "numpy",
    "reasoning_gym",
    "math_verify",
}
LIGHT = ("types.py", "config.py", "errors.py")
"""Files that every process reads first, and that import none of HEAVY, directly or through each other."""
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60

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


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_upstream_and_libraries_stay_where_they_belong(path: Path) -> None:
    assert import_problems(name_of(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name in LIGHT], ids=name_of)
def test_types_configs_and_errors_load_nothing_heavy(path: Path) -> None:
    loaded = [(module, name_of(where)) for module, where in top_level_modules(path, set())]
    assert [pair for pair in loaded if pair[0].split(".")[0] in HEAVY] == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_fit_in_view(path: Path) -> None:
    assert length_problems(name_of(path), path.read_text(encoding="utf-8")) == []


def test_every_file_is_named_in_the_architecture_and_every_name_is_a_file() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = set(re.findall(rf"`((?:{'|'.join(STAGES)})/[\w/]+\.py)`", text))
    there = {name_of(path) for path in SOURCES if path.name != "__init__.py"}
    assert sorted(there - named) == [], "files without a line in ARCHITECTURE.md"
    assert sorted(named - there) == [], "lines in ARCHITECTURE.md without a file"


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
