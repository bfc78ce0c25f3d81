"""The page's scripts fit together: TypeScript reads them, and the types in their comments, and finds nothing."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
STATIC = HERE.parents[1] / "cluster" / "dashboard" / "static"
NODE = shutil.which("node")
COMPILER = HERE / "node_modules" / "typescript" / "bin" / "tsc"
DEADLINE_S = 240
TOOLS = ("typescript", "axe-core")
"""Of the packages beside the scripts: those that check the page and are no part of it."""


def findings(config: Path) -> list[str]:
    """What TypeScript says about the scripts of a configuration, a line each."""
    if NODE is None or not COMPILER.is_file():
        pytest.skip("needs node, and what `make check-scripts` installs")
    done = subprocess.run(
        [NODE, str(COMPILER), "--project", str(config), "--pretty", "false"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]


def test_nothing_is_found_in_the_scripts() -> None:
    assert findings(HERE / "tsconfig.json") == []


def test_a_wrong_name_a_forgotten_null_and_a_wrong_argument_are_found(tmp_path: Path) -> None:
    (tmp_path / "bad.js").write_text(
        'import { useApi } from "shoal/frame/api.js";\n'
        'import { no_such_name } from "shoal/parts/ui.js";\n'
        'export const height = document.getElementById("app").clientHeight;\n'
        "export const answer = () => useApi(7);\n"
        "export const used = no_such_name;\n",
        encoding="utf-8",
    )
    config = {"extends": str(HERE / "tsconfig.json"), "include": ["bad.js"]}
    (tmp_path / "tsconfig.json").write_text(json.dumps(config), encoding="utf-8")
    found = [re.search(r"bad\.js\((\d),\d+\): error (TS\d+)", line) for line in findings(tmp_path / "tsconfig.json")]
    assert [match.groups() for match in found if match] == [("2", "TS2305"), ("3", "TS2531"), ("4", "TS2345")]


def test_no_finding_is_silenced_without_a_reason() -> None:
    for path in STATIC.rglob("*.js"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if "vendor" not in path.parts and re.search(r"@ts-(ignore|expect-error|nocheck)", line):
                assert re.search(r"@ts-expect-error: \S", line), f"{path.name}: {line.strip()}"


def test_the_types_are_those_of_the_libraries_that_the_page_has() -> None:
    wanted = json.loads((HERE / "package.json").read_text(encoding="utf-8"))["devDependencies"]
    table = (STATIC / "vendor" / "README.md").read_text(encoding="utf-8")
    there = dict(re.findall(r"^\| `(\w+)` \| `[\w.-]+` \| ([\d.]+) \|", table, re.MULTILINE))
    assert there == {name: version for name, version in wanted.items() if name not in TOOLS}
