"""What of the code reward needs no sandbox: forms of tests, finding the program, values and outputs compared."""

import time
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from reward.code.comparison import same_output, same_value
from reward.code.inside.values import decode, encode
from reward.code.program import program_of
from reward.code.row_tests import Assertions, CallTest, StdinTest, read_tests


def test_forms_of_tests() -> None:
    assert read_tests({"tests": [{"input": "1", "output": "2"}]}) == (StdinTest(stdin="1", stdouts=("2",)),)
    row = {"entry_point": "f", "tests": '[{"input": "[1]\\n2", "output": "3"}, {"input": {"a": 1}, "output": "x"}]'}
    assert read_tests(row) == (
        CallTest(entry_point="f", args=([1], 2), kwargs={}, results=(3,)),
        CallTest(entry_point="f", args=(), kwargs={"a": 1}, results=("x",)),
    )
    code = "import math\nassert f(1)\nx = 2\nassert f(x)\nprint(x)\n"
    assert read_tests({"test_code": code, "test_setup": "y = 1"}) == Assertions(
        entry_point=None, setup="y = 1", tests=("import math\nassert f(1)\n", "x = 2\nassert f(x)\nprint(x)\n")
    )
    check = "def check(candidate):\n    assert candidate(1)\n"
    row = {"test_code": check, "entry_point": "f"}
    assert read_tests(row) == Assertions(entry_point="f", setup="\n" + check, tests=("check(candidate)",))


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("print(1)", "print(1)"),
        ("Text.\n```python\nprint(1)\n```\nMore.", "print(1)\n"),
        ("```python\nfirst\n```\nand\n```py\nlast\n```", "last\n"),
        ("```python\nprogram\n```\nIt prints\n```text\n7\n```", "program\n"),
        ("```\nplain\n```", "plain\n"),
        ("~~~Python3\nx = '''\n```\n'''\n~~~", "x = '''\n```\n'''\n"),
        ("Cut off:\n```python\nprint(1", "print(1"),
        ("  ```python title=x\n  x\n  ```", "  x\n"),
        ("```javascript\n1\n```", "1\n"),
    ],
)
def test_the_program_of_a_completion(completion: str, program: str) -> None:
    assert program_of(completion) == program


_PLAIN = (None, True, -5, 2**70, 1.5, float("inf"), "a\ud800", [1, [2]], (1, (2,)), {1, 2}, frozenset({"a"}), b"\xff")


@pytest.mark.parametrize("value", [*_PLAIN, 2j, {"a": 1, 2: (3,)}, {}, (), [], {"d": 1}, {"r": 0}])
def test_values_survive_the_wall(value: Any) -> None:
    there_and_back = decode(encode(value))
    assert there_and_back == value
    assert type(there_and_back) is type(value)


@pytest.mark.parametrize("text", [{}, {"x": 1}, {"t": 3}, {"r": 1}, {"s": [[1]]}, {"i": 5}, {"d": [[1]]}, {"c": []}])
def test_what_is_no_value_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="no encoded value"):
        decode(text)


@pytest.mark.parametrize(
    ("expected", "output", "same"),
    [
        ("1\n2\n", b"1  \n2\n\n", True),
        ("1 2", b"1\n2", False),
        ("0.5", b"0.50000000001", True),
        ("0.5", b"0.51", False),
        ("5", b"5.0", False),
        ("nan", b"inf", False),
        ("a", b"a\xff", False),
        ("", b"", True),
    ],
)
def test_same_output(expected: str, output: bytes, same: bool) -> None:
    assert same_output(expected, output, 1e-6) is same


def test_same_value_reads_no_deeper_than_what_is_expected() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    assert not same_value([[1]], deep, 1e-6)
    assert same_value({"1": [1, 2.0]}, encode({1: (1, 2.0000000001)}), 1e-6)
    assert not same_value({"1": 1}, {"d": [[1, 1], [1, 1]]}, 1e-6)
    assert not same_value("7", encode(7), 1e-6)
    assert not same_value(7, encode("7"), 1e-6)
    assert same_value(2**100, encode(2**100), 1e-6)


@pytest.mark.parametrize("expected", [5, 5.0, True])
@pytest.mark.parametrize(
    "content",
    [
        ["Decimal", "sNaN"], ["Decimal", "NaN"], ["Decimal", "Infinity"], ["Fraction", "1e5000000"],
        ["Decimal", "1E+5000000"], ["Fraction", "5/0"],
        ["Fraction", "1" * 5000], ["Decimal", 5], ["Decimal"], "5", None,
    ],
)  # fmt: skip
def test_a_number_that_a_program_made_up_is_wrong_and_quick(expected: float, content: object) -> None:
    started_s = time.process_time()
    assert not same_value(expected, {"n": content}, 1e-6)
    assert time.process_time() - started_s < 0.1


def test_fractions_and_decimals_are_the_numbers_that_they_are() -> None:
    same = [
        (5, Fraction(10, 2)), (0.5, Fraction(1, 2)), (-0.75, Fraction(-3, 4)), (5, Decimal("5.00")),
        (2500, Decimal("2.5E+3")), (1e-9, Decimal("1E-9")), (10**50, Decimal(10**50)), (2**200, Fraction(2**200)),
    ]  # fmt: skip
    assert [expected for expected, value in same if not same_value(expected, encode(value), 0.0)] == []
    assert not same_value(5, encode(Fraction(11, 2)), 1e-6)
    assert not same_value(5, encode(Decimal("5.1")), 1e-6)
