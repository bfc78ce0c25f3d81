"""Every judgement of the reasoning-gym in the lock, tried with right, wrong and odd answers.

A right answer is 1. Any other is a number in [0, 1), fast, and never an error: an error would be no punishment, and
many of them end a run. `QUICK` are those that did otherwise, or have no answer of their own; the rest is slow.
"""

import json
import math
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

import pytest
import reasoning_gym
from reasoning_gym.factory import DATASETS
from reasoning_gym.games.rush_hour import Board

from reward.rules.reasoning_gym import reasoning_gym_score
from reward.rules.reasoning_gym_mends import MENDED, REFUSED, arithmetic_value
from reward.types import RewardInput

MAX_SECONDS = 3.0
"""For one answer: less than the time that a reward worker gives it."""
COMPOSED = "composite"
"""Made of other generators, whose names its rows have."""
QUICK = (
    "ab", "boxnet", "chain_sum", "coin_flip", "complex_arithmetic", "game_of_life", "game_of_life_halting",
    "graph_color", "polynomial_equations", "prime_factorization", "propositional_logic", "puzzle24", "rubiks_cube",
    "rush_hour", "time_intervals",
)  # fmt: skip
SEVERAL_RIGHT = frozenset({"n_queens", "quantum_lock", "sokoban"})
"""Where another question's answer may be right too: the judgement plays it out."""
GENERATOR_PARAMS: Mapping[str, dict[str, Any]] = {"rush_hour": {"max_moves": 6}}
"""What makes questions that a test can answer."""

ODD = (
    "", " ", "\n\n\n", "nan", "NaN", "-nan", "inf", "-inf", "Infinity", "nan+nanj", "nan + 1i", "inf + infi", "1/nan",
    "[nan]", "[[nan]]", "None", "null", "True", "False", "yes", "no", "0", "-1", "1", "7", "01", "1.", "0x10", "1e999",
    "1e9", "1/0", "1/2", "0/0", "9" * 5000, "1 2 3", "1,2,3", "1, 2", "1+2j", "٣", "²", "1 × 2", "2 × x", "2x", "x^2",
    "9**9**9", "10**10**10", "[", "]", "[]", "{}", "()", "{", '{"a": 1}', '[{"a": 1}]', '{"0": 0}', "[[1]]", "[1, 2]",
    "[1, 'a']", "('a', 'b')", '["a"]', "[[]]", "1\n2", "0 0\n0 0", "_ _ Q _", "U", "U D L R", "U99999999999",
    "A+99999999999", "L1 R2", "A->B", "A → B", "A B C", "Move disk 1 from Peg 1 to Peg 9", "12:00", "25:61", "5 days",
    "-5 days, 99:99", "2024-13-45", "zzz", "x", "I do not know.", "the answer", "é漢字🙂", "\x00", "'", '"', "\\", "%s",
    "-", "a" * 20_000, "[" * 3000, "(" * 3000, "1+" * 3000 + "1",
)  # fmt: skip


@lru_cache(maxsize=16)
def entries(generator: str, size: int = 2) -> list[dict[str, Any]]:
    """Questions as they come out of rows of JSON."""
    params = GENERATOR_PARAMS.get(generator, {})
    made = reasoning_gym.create_dataset(generator, size=size, seed=0, **params)
    return [json.loads(json.dumps(made[index], default=str)) for index in range(size)]


def score(entry: Mapping[str, Any], answer: str) -> float:
    item = RewardInput(
        question=entry["question"],
        prompt=entry["question"],
        completion=f"<answer>{answer}</answer>",
        ground_truth=entry["answer"],
        row={"metadata": entry["metadata"]},
        task="t",
    )
    return reasoning_gym_score(item)


def _inverse(entry: Mapping[str, Any]) -> str:
    moves = reversed(entry["metadata"]["scramble_moves"].split())
    return " ".join(move.removesuffix("'") if move.endswith("'") else move + "'" for move in moves)


def _way_out(entry: Mapping[str, Any]) -> str:
    """The moves of Rush Hour that free the car, the fewest first."""
    start = entry["metadata"]["board_config"]
    letters = sorted(set(start) - {"o", "x"})
    seen, ways = set(), deque([""])
    while ways:
        way = ways.popleft()
        board = Board(start)
        board.perform_moves(way)
        if board.solved:
            return way
        if str(board) not in seen:
            seen.add(str(board))
            ways.extend(f"{way} {letter}{sign}1" for letter in letters for sign in "+-")
    raise AssertionError(start)


def _lifts(entry: Mapping[str, Any]) -> str:
    """Each box to the target of its colour, along its row and then its column."""
    plan = []
    for place, things in entry["metadata"]["initial_state"].items():
        for box in (thing for thing in things if thing.startswith("box_")):
            target = "target_" + box.removeprefix("box_")
            goal = next(p for p, found in entry["metadata"]["initial_state"].items() if target in found)
            at, to = ([float(part) for part in name.split("_")] for name in (place, goal))
            for axis in (0, 1):
                while at[axis] != to[axis]:
                    before = list(at)
                    at[axis] += math.copysign(1.0, to[axis] - at[axis])
                    plan.append({f"Agent{before}": f"move({box}, square{at})"})
            plan.append({f"Agent{at}": f"move({box}, {target})"})
    return json.dumps(plan)


WORKED_OUT: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "boxnet": _lifts,
    "graph_color": lambda entry: json.dumps(entry["metadata"]["possible_answer"]),
    "propositional_logic": lambda entry: str(entry["metadata"]["example_answer"]),
    "rubiks_cube": _inverse,
    "rush_hour": _way_out,
}
"""Generators whose questions come without an answer -> a right one."""


def right_answer(generator: str, entry: Mapping[str, Any]) -> str:
    return WORKED_OUT[generator](entry) if generator in WORKED_OUT else entry["answer"]


def means_the_same(answer: str, truth: str) -> bool:
    """The same word in another case, or the same number."""
    if answer.strip().casefold() == truth.strip().casefold():
        return True
    try:
        return Fraction(answer.replace(",", "")) == Fraction(truth)
    except (ValueError, ZeroDivisionError):
        return False


def check(generator: str) -> None:
    first, second = entries(generator)
    right = right_answer(generator, first)
    assert score(first, right) == 1.0
    assert score(second, right_answer(generator, second)) == 1.0
    other = right_answer(generator, second)
    wrong = [] if generator in SEVERAL_RIGHT or generator in WORKED_OUT or other == right else [other]
    seen = {}
    for answer in (*ODD, *wrong):
        started_s = time.monotonic()
        seen[answer] = score(first, answer)
        assert time.monotonic() - started_s < MAX_SECONDS, answer[:80]
        assert 0.0 <= seen[answer] <= 1.0, answer[:80]
    taken = [answer[:80] for answer, value in seen.items() if value == 1.0 and not means_the_same(answer, right)]
    assert taken == [], f"taken for {right[:80]!r}"
    assert min(seen.values()) < 0.5, "it cannot tell: every text is worth about as much"


@pytest.mark.parametrize("generator", QUICK)
def test_right_answers_are_1_and_no_other_is_or_ends_the_run(generator: str) -> None:
    check(generator)


@pytest.mark.slow
@pytest.mark.parametrize("generator", sorted({*DATASETS} - {*QUICK, *REFUSED, COMPOSED}))
def test_right_answers_are_1_and_no_other_is_or_ends_the_run_in_all_others(generator: str) -> None:
    check(generator)


def test_those_with_a_judgement_of_ours_are_among_the_quick_ones() -> None:
    assert set(MENDED) <= set(QUICK)
    assert set(WORKED_OUT) <= set(QUICK)


def test_an_answer_that_cannot_be_read_says_so() -> None:
    entry = entries("prime_factorization")[0]
    refused = score(entry, "seven")
    assert refused == 0.0
    assert re.match("the scorer of prime_factorization cannot read the answer \\(ValueError: ", refused.detail)  # type: ignore[attr-defined]


def test_a_row_that_cannot_be_scored_is_an_error_and_no_0() -> None:
    entry = {**entries("prime_factorization")[0], "answer": "seven"}
    with pytest.raises(ValueError, match="invalid literal"):
        score(entry, "2 × 3")


def test_halting_is_compared_as_a_word() -> None:
    entry = {**entries("game_of_life_halting")[0], "answer": "False"}
    answers = {"False": 1.0, "false": 1.0, "False.": 1.0, "True": 0.0, "": 0.0, "0": 0.0, "not True": 0.0}
    assert {answer: score(entry, answer) for answer in answers} == answers


def test_24_is_made_of_the_puzzle_s_own_numbers() -> None:
    entry = {**entries("puzzle24")[0], "answer": "8*(5*1 - 2)"}
    entry["metadata"] = {**entry["metadata"], "numbers": [8, 5, 1, 2]}
    answers = {
        "8*(5*1 - 2)": 1.0, "(5 - 2) * 8 * 1": 1.0, "8 * (5 - 2) / 1": 1.0, "2*(5 + 1 + 6)": 0.01, "8 * 3": 0.01,
        "8 * (5 - 2)": 0.01, "8 + 5 + 1 + 2": 0.01, "24": 0.01, "-(8*(2 - 5*1))": 1.0, "8 * 5 / 1 / 2": 0.01,
    }  # fmt: skip
    assert {answer: score(entry, answer) for answer in answers} == answers
    assert arithmetic_value("8/3*3") == 8
    assert arithmetic_value("24.0") is None
    assert arithmetic_value("1/(2 - 2)") is None


def test_a_coin_s_number_that_only_begins_like_the_truth_is_not_right() -> None:
    entry = {**entries("coin_flip")[0], "answer": "0.5"}
    # The share of digits that agree from the left, of the longer one: "0.5" in "0.51" is 3 of 4.
    answers = {"0.5": 1.0, "1/2": 1.0, "0.50": 1.0, "0.51": 0.75, "0.4": 2 / 3, "1": 0.0, "1e999": 0.0, "5,0": 0.0}
    assert {answer: score(entry, answer) for answer in answers} == answers


def test_complex_numbers_that_are_none() -> None:
    entry = entries("complex_arithmetic")[0]
    assert [score(entry, answer) for answer in ("nan", "nan + 1i", "NaNj", "inf", "1e400 + 1i")] == [0.0] * 5


def test_an_equation_without_real_solutions() -> None:
    entry = {**entries("polynomial_equations")[0], "answer": ""}
    right = ("", "none", "There are no real solutions.", "∅")
    assert [score(entry, answer) for answer in (*right, "zzz", "I do not know", "3")] == [1.0] * 4 + [0.0] * 3


def test_the_params_of_the_task_decide_where_a_judgement_depends_on_them() -> None:
    params = {"max_num_decimal_places": 2, "min_num_decimal_places": 1, "precision": 5}
    entry = json.loads(json.dumps(reasoning_gym.create_dataset("decimal_arithmetic", size=1, seed=0, **params)[0]))
    near = f"{float(entry['answer']) + 0.01:.6f}"
    item = RewardInput(
        question="q", prompt="q", completion=near, ground_truth=entry["answer"], row={"metadata": entry["metadata"]}
    )
    assert reasoning_gym_score(item) == 0.0
    assert reasoning_gym_score(item, generator_params=params) == 1.0
