"""The grader and math-verify alone over the same pairs: the figures of docs/grading.md.

Each line of pairs.jsonl has a truth, a completion, what a reader says of it (`right`) and what math-verify 0.9.0 said
(`math_verify`; null for four hostile ones, of which it was not asked). The plain truths are final
answers of GSM8K (MIT licence); all completions and labels are our own.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from math_verify import parse, verify

from reward.math.answer import math_reward
from tests.reward.samples import item

PAIRS: list[dict[str, Any]] = [
    json.loads(line) for line in Path(__file__).with_name("pairs.jsonl").read_text(encoding="utf-8").splitlines()
]
PAGE = (Path(__file__).parents[3] / "docs" / "grading.md").read_text(encoding="utf-8")
EVERY = 20
"""Of the pairs that the fast test asks math-verify about again."""


def by_math_verify(pair: dict[str, Any]) -> bool:
    return bool(verify(parse(rf"\boxed{{{pair['truth']}}}"), parse(pair["completion"])))


def test_the_grader_says_what_a_reader_says() -> None:
    wrong = [pair for pair in PAIRS if math_reward(item(pair["completion"], pair["truth"])) != float(pair["right"])]
    assert wrong == []


def test_the_figures_of_the_page() -> None:
    asked = [pair for pair in PAIRS if pair["math_verify"] is not None]
    strict = Counter(pair["kind"] for pair in asked if pair["right"] and not pair["math_verify"])
    lenient = Counter(pair["kind"] for pair in asked if not pair["right"] and pair["math_verify"])
    agreed = len(asked) - strict.total() - lenient.total()
    assert len(PAIRS) >= 1_000
    figures = {
        "pairs": len(PAIRS),
        "a reader says right": sum(pair["right"] for pair in PAIRS),
        "asked of both": len(asked),
        "both agree": agreed,
        "math-verify refuses a right one": strict.total(),
        "math-verify accepts a wrong one": lenient.total(),
    }
    stated = dict(re.findall(r"^\| ([^|]+?) \| ([\d,]+) \|$", PAGE, re.MULTILINE))
    assert {name: int(stated[name].replace(",", "")) for name in figures} == figures
    rows = re.findall(r"^\| ([a-z][a-z ]*) \| (\d+) \| (\d+) \| .+ \|$", PAGE, re.MULTILINE)
    assert {kind: (int(refused), int(accepted)) for kind, refused, accepted in rows} == {
        kind: (strict[kind], lenient[kind]) for kind in {*strict, *lenient}
    }


def test_math_verify_says_what_is_written_down_of_it() -> None:
    sample = [pair for pair in PAIRS if pair["math_verify"] is not None][::EVERY]
    assert [pair for pair in sample if by_math_verify(pair) != pair["math_verify"]] == []


@pytest.mark.slow
def test_math_verify_says_all_that_is_written_down_of_it() -> None:
    asked = [pair for pair in PAIRS if pair["math_verify"] is not None]
    assert [pair for pair in asked if by_math_verify(pair) != pair["math_verify"]] == []
