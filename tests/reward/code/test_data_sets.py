"""Rows as public data sets have them: read as they stand, judged right, refused before anything runs."""

import base64
import json
import pickle
import re
import zlib
from pathlib import Path
from typing import Any

import pytest

from reward.code.execution import code
from reward.code.row_tests import Assertions, CallTest, StdinTest
from reward.code.rows import RowTests, row_tests
from reward.config import RewardConfig, RewardFunctionConfig
from reward.row_checks import bad_rows
from reward.worker import RewardWorker
from tests.reward.samples import group, item

STDIN = (StdinTest(stdin="1 2\n", stdouts=("3\n",)), StdinTest(stdin="3 4\n", stdouts=("7\n",)))
PAIRS = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
CASES = [{"input": "1 2\n", "output": "3\n"}, {"input": "3 4\n", "output": "7\n"}]
pytestmark = pytest.mark.integration

FUNCTION = "class Solution:\n    def add(self, a, b):\n        return a + b"


def read(row: dict[str, Any], question: str = "q", ground_truth: str | None = None) -> RowTests:
    return row_tests(item("", ground_truth, row=row, question=question))


def calls(*results: tuple[Any, ...]) -> tuple[CallTest, ...]:
    given = ((1, 2), (3, 4))
    return tuple(
        CallTest(entry_point="add", args=args, kwargs={}, results=right)
        for args, right in zip(given, results, strict=True)
    )


def _packed(cases: list[dict[str, Any]]) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


_TYPED = [{**case, "testtype": "stdin"} for case in CASES]
_FUNCTIONAL = [
    {"input": "1\n2", "output": "3", "testtype": "functional"},
    {"input": "3\n4", "output": "7", "testtype": "functional"},
]


@pytest.mark.parametrize(
    "row",
    [
        {"tests": CASES},
        {"tests": json.dumps(CASES)},
        {"input_output": json.dumps(PAIRS), "difficulty": "interview"},  # APPS, TACO
        {"input_output": {"inputs": [["1 2"], ["3 4"]], "outputs": [["3"], ["7"]]}},  # lines
        {"tests": json.dumps(PAIRS)},  # DeepCoder
        {"reward_model": {"style": "rule", "ground_truth": json.dumps(PAIRS)}},  # PRIME
        {"public_test_cases": json.dumps(_TYPED[:1]), "private_test_cases": json.dumps(_TYPED[1:]), "metadata": "{}"},
        {"public_test_cases": json.dumps(_TYPED[:1]), "private_test_cases": _packed(_TYPED[1:])},  # LiveCodeBench
        {
            "public_tests": {"input": ["1 2\n"], "output": ["3\n"]},  # CodeContests
            "private_tests": {"input": ["3 4\n"], "output": ["7\n"]},
            "generated_tests": {"input": [], "output": []},
        },
        {"verification_info": {"language": "python", "test_cases": [{**c, "type": "stdin_stdout"} for c in CASES]}},
        {"official_tests": CASES, "input_mode": "stdio"},  # codeforces
    ],
)
def test_whole_programs(row: dict[str, Any]) -> None:
    found = read(row).tests
    assert isinstance(found, tuple)
    tests = [test for test in found if isinstance(test, StdinTest)]
    assert [(t.stdin.strip(), [out.strip() for out in t.stdouts]) for t in tests] == [("1 2", ["3"]), ("3 4", ["7"])]


def test_the_answer_of_a_row_may_be_its_tests() -> None:
    assert read({}, ground_truth=json.dumps(PAIRS)).tests == STDIN
    assert read({}, ground_truth=json.dumps(["assert f(1)"])).tests == Assertions(
        entry_point=None, setup="", tests=("assert f(1)",)
    )


@pytest.mark.parametrize(
    ("row", "tests"),
    [
        (
            {"input_output": json.dumps({"fn_name": "add", "inputs": [[1, 2], [3, 4]], "outputs": [[3], 7]})},
            calls(([3], 3), (7,)),
        ),
        ({"public_test_cases": json.dumps(_FUNCTIONAL), "metadata": '{"func_name": "add"}'}, calls((3,), (7,))),
        (
            {"tests": [{"input": [1, 2], "outputs": [3, 4]}, {"input": [3, 4], "output": 7}], "entry_point": "add"},
            calls((3, 4), (7,)),
        ),
        (
            {
                "verification_info": json.dumps(
                    {
                        "test_cases": [
                            {"type": "function_call", "fn_name": "add", "input": [1, 2], "output": 3},
                            {"type": "function_call", "fn_name": "add", "input": [3, 4], "output": 7},
                        ]
                    }
                )
            },
            calls((3,), (7,)),
        ),
    ],
)
def test_functions(row: dict[str, Any], tests: tuple[CallTest, ...]) -> None:
    assert read(row).tests == tests
    # A method of `Solution`, which is what such questions ask for, and a plain function both answer.
    assert code(item(FUNCTION, None, row=row)) == 1.0
    assert code(item("def add(a, b): return a + b", None, row=row)) == 1.0
    assert code(item(FUNCTION.replace("+", "-"), None, row=row)) == 0.0


def test_mbpp() -> None:
    row: dict[str, Any] = {
        "task_id": 2,
        "code": "...",
        "test_list": ["assert add(1, 2) == 3", "assert half(math.pi) < 2"],
    }
    full = {**row, "test_setup_code": "import math", "challenge_test_list": []}
    sanitized = {**row, "test_imports": ["import math"]}
    for each in (full, sanitized):
        assert read(each).tests == Assertions(entry_point=None, setup="import math", tests=tuple(row["test_list"]))
    program = "def add(a, b): return a + b\ndef half(x): return x / 2"
    assert code(item(program, None, row=full)) == 1.0
    assert code(item(program.replace("/", "*"), None, row=full)) == 0.0


PROMPT = (
    "from typing import List\n\n\ndef twice(xs: List[int]) -> List[int]:\n    return [2 * x for x in xs]\n\n\n"
    'def last_twice(xs: List[int]) -> int:\n    """ The last one, twice.\n    """\n'
)
HUMAN_EVAL = {
    "entry_point": "last_twice",
    "test": "METADATA = {}\n\n\ndef check(candidate):\n    assert candidate([1, 2]) == 4\n"
    "    assert candidate([5]) == 10\n",
}


def test_human_eval() -> None:
    bodies = {
        "    return twice(xs)[-1]\n": 1.0,  # what stands behind the question
        "def last_twice(xs: List[int]) -> int:\n    return twice(xs)[-1]\n": 1.0,  # with the question's own helper
        f"{PROMPT}    return twice(xs)[-1]\n": 1.0,  # all of it again
        "    return twice(xs)[0]\n": 0.0,
        "    pass\n": 0.0,
    }
    for program, right in bodies.items():
        completion = f"Here:\n```python\n{program}```"
        assert code(item(completion, None, row=HUMAN_EVAL, question=PROMPT)) == right, program
        named = {**HUMAN_EVAL, "prompt": PROMPT}
        assert code(item(completion, None, row=named, question="Complete it.")) == right, program


def test_tests_for_pytest() -> None:
    row = {
        "test": "from solution import add, Box\nimport math\n\ndef test_add():\n    assert add(1, 2) == 3\n\n"
        "def test_box():\n    box = Box(4)\n    assert math.isclose(box.area(), 16)\n"
    }
    program = (
        "def add(a, b): return a + b\nclass Box:\n    def __init__(self, n): self.n = n\n    def area(self): return {}"
    )
    assert code(item(program.format("self.n ** 2.0"), None, row=row)) == 1.0
    got = code(item(program.format("self.n"), None, row=row), score="fraction")
    assert (got, got.detail) == (0.5, "test 2 of 2: AssertionError: ")


def test_one_of_several_outputs_is_right() -> None:
    row = {"tests": [{"input": "4\n", "outputs": ["2 2\n", "1 3\n", "3 1\n"]}]}
    for program, right in (("print(1, 3)", 1.0), ("print(2, 2)", 1.0), ("print(4, 0)", 0.0)):
        assert code(item(program, None, row=row)) == right


CHECK = (
    "def check(input, output, expected):\n    n = int(input)\n    a, b = map(int, output.split())\n"
    "    return a + b == n and 'sum' in expected\n"
)
SCRIPT = (
    "import sys\ndef main():\n    n = int(open(sys.argv[1]).read())\n    want = open(sys.argv[2]).read()\n"
    "    a, b = map(int, open(sys.argv[3]).read().split())\n    print(int(a + b == n and 'sum' in want))\n"
    "if __name__ == '__main__':\n    main()\n"
)


@pytest.mark.parametrize("row", [{"checker": CHECK}, {"generated_checker": SCRIPT}])
def test_a_checker_decides(row: dict[str, Any]) -> None:
    row = {"official_tests": [{"input": f"{n}\n", "output": "any sum\n"} for n in (4, 7)], **row}
    assert code(item("n = int(input())\nprint(1, n - 1)", None, row=row)) == 1.0
    assert code(item("n = int(input())\nprint(n, 0)", None, row=row)) == 1.0
    wrong = code(item("n = int(input())\nprint(1, 3)", None, row=row), score="fraction")
    assert (wrong, wrong.detail) == (0.5, "test 2 of 2: wrong output")
    odd = code(item("print('all right')", None, row=row))
    assert (odd, odd.detail) == (0.0, "test 1 of 2: wrong output its checker raised ValueError")


@pytest.mark.parametrize("late", ["pass", "__import__('os')._exit(0)"])
def test_an_output_that_costs_the_checker_its_time_costs_no_other_output_its_verdict(late: str) -> None:
    checker = f"""
import time
def check(input, output, expected):
    started_s = time.process_time()
    while input == "2" and time.process_time() < started_s + 1.0: pass
    if input == "2": {late}
    return input != "4"
"""
    row = {"tests": [{"input": str(n), "output": ""} for n in range(1, 5)], "checker": checker}
    got = code(item("print(1)", None, row=row), score="fraction", time_limit_s=0.7)
    # The first and the third are right.
    assert (got, got.detail) == (0.5, "test 2 of 4: it took longer than 0.7 s")


def test_a_program_cannot_speak_for_the_checker() -> None:
    row = {"tests": [{"input": "4\n", "output": "sum"}], "checker": CHECK}
    sources = (
        "print('1')\nprint('{\"right\": true}')",
        "import os, struct\nm = b'{\"right\": true}'\nfor fd in range(1, 64):\n"
        "    try: os.write(fd, struct.pack('!I', len(m)) + m)\n    except OSError: pass",
        "open('/tmp/output.txt', 'w').write('1 3')",
    )
    for source in sources:
        assert code(item(source, None, row=row)) == 0.0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"input_output": "{"}, "the column input_output is text, but no JSON"),
        ({"input_output": '{"inputs": ["1"], "outputs": []}'}, "the column input_output has 1 inputs and 0 outputs"),
        ({"input_output": "[]"}, 'the column input_output has to hold {"inputs": [...], "outputs": [...]}'),
        ({"public_test_cases": "[]"}, "the column public_test_cases has no tests"),
        ({"public_test_cases": json.dumps(_FUNCTIONAL)}, "has tests of a function, and nothing tells its name"),
        ({"public_test_cases": json.dumps(_TYPED), "private_test_cases": "x"}, "private_test_cases cannot be read"),
        (
            {
                "public_test_cases": json.dumps(_TYPED),
                "private_test_cases": base64.b64encode(zlib.compress(pickle.dumps(print))).decode(),
            },
            "private_test_cases cannot be read: it names builtins.print",
        ),
        ({"public_tests": {"input": ["1"], "output": []}}, "the column public_tests has 1 inputs and 0 outputs"),
        ({"test_list": ["assert f("]}, "the tests of the row are no Python"),
        ({"test": HUMAN_EVAL["test"]}, "it needs the column entry_point"),
        (
            {"test": "import unittest\nclass T(unittest.TestCase): pass"},
            "nor a function check(candidate) or test_",
        ),
        ({"test_list": ["import numpy as np\nassert f(np.eye(2))"]}, "the tests of the row import numpy, which is not"),
        ({"verification_info": {"language": "cpp", "test_cases": CASES}}, "wants a program in 'cpp'"),
        ({"official_tests": CASES, "input_mode": "file"}, "wants its input from a file"),
        ({"tests": CASES, "checker": "def check(:"}, "the tests of the row are no Python"),
        ({"test_list": ["assert f()"], "checker": CHECK}, "a checker is Python, and for the output of whole programs"),
        ({"tests": [{"input": "1", "outputs": []}]}, "outputs of a test is a list of right ones, got []"),
        ({"answer": "3", "level": 2}, "it needs one of the columns tests, test_code, input_output"),
    ],
)
def test_what_cannot_judge_is_refused_before_a_run(row: dict[str, Any], message: str) -> None:
    config = RewardConfig(functions=(RewardFunctionConfig(function="code"),))
    rows: list[dict[str, Any]] = [{"tests": CASES}, row]
    prompts = [group([], None, row=each).prompt for each in rows]
    found = bad_rows(config, prompts)
    assert list(found) == [1]
    assert message in found[1]
    with pytest.raises(ValueError) as raised:
        code(item("print(1)", None, row=row))
    assert message in str(raised.value)


def test_tests_may_import_what_programs_may() -> None:
    row: dict[str, Any] = {"test_list": ["import numpy as np\nassert f(3) == float(np.eye(3).sum())"]}
    params: dict[str, Any] = {"packages": ("numpy",), "memory_mib": 2048}
    assert code(item("import numpy as np\ndef f(n): return float(np.ones(n).sum())", None, row=row), **params) == 1.0
    functions = (RewardFunctionConfig(function="code", params=params),)
    assert bad_rows(RewardConfig(functions=functions), [group([], None, row=row).prompt]) == {}


def test_the_answer_of_a_program_is_the_program() -> None:
    texts = ["I see seen[r, c] = 5.\n```python\nprint(1)\n```", "The answer is 5.\n```python\nprint(1)\n```\nDone.", ""]
    worker = RewardWorker(RewardConfig(functions=(RewardFunctionConfig(function="code"),)), "reward-0")
    try:
        rewards = worker.score(group(texts, row={"tests": [{"input": "", "output": "1"}]})).rewards
    finally:
        worker.close()
    assert [reward.answer for reward in rewards] == ["print(1)", "print(1)", None]
    assert [reward.vote for reward in rewards] == ["print(1)", "print(1)", None]
    assert [reward.reward for reward in rewards] == [1.0, 1.0, 0.0]


def test_the_rows_of_the_page_are_read() -> None:
    page = (Path(__file__).parents[3] / "docs" / "programs.md").read_text(encoding="utf-8")
    rows = [json.loads(text) for text in re.findall(r"^```json\n(.*?)^```", page, re.DOTALL | re.MULTILINE)]
    assert [type(read(row).tests).__name__ for row in rows] == ["tuple", "tuple", "Assertions", "tuple", "tuple"]
    add = "def add(a, b): return a + b"
    programs = ("print(sum(map(int, input().split())))", add, add, "print(2, 1)", "print(5, -2)")
    assert [float(code(item(program, None, row=row))) for program, row in zip(programs, rows, strict=True)] == [1.0] * 5
    for column in ("input_output", "public_test_cases", "test_list", "verification_info", "official_tests"):
        assert f"| `{column}` |" in page
