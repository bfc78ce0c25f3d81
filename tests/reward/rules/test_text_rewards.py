"""exact_match, regex, length, overlong and format, worked out by hand."""

import time

import pytest

from reward.rules.length import length, length_penalty, overlong
from reward.rules.response_format import response_format
from reward.rules.text_match import exact_match, regex
from tests.reward.samples import item


def test_exact_match() -> None:
    assert exact_match(item(" Paris\n", "Paris")) == 1.0
    assert exact_match(item("paris", "Paris")) == 0.0
    assert exact_match(item("STRASSE", "straße"), ignore_case=True) == 1.0
    assert exact_match(item(" Paris", "Paris"), strip=False) == 0.0
    with pytest.raises(ValueError, match="needs a ground truth"):
        exact_match(item("x", None))


def test_regex_searches_or_matches_all() -> None:
    assert regex(item("so it is 12."), pattern=r"\d+") == 1.0
    assert regex(item("so it is 12."), pattern=r"\d+", mode="full") == 0.0
    assert regex(item("12"), pattern=r"\d+", mode="full") == 1.0
    assert regex(item("A\nB"), pattern="a.b") == 0.0
    assert regex(item("A\nB"), pattern="a.b", ignore_case=True, dotall=True) == 1.0


def test_regex_group_is_compared_and_the_last_match_counts() -> None:
    text = "Result: 3, no: Result: 4"
    assert regex(item(text, "4"), pattern=r"Result: (\d)", group=1) == 1.0
    assert regex(item(text, "3"), pattern=r"Result: (?P<value>\d)", group="value") == 0.0
    with pytest.raises(ValueError, match="needs a ground truth"):
        regex(item(text, None), pattern=r"Result: (\d)", group=1)


def test_length_falls_linearly_from_its_target() -> None:
    # target 10: at 10 tokens 1; 5 away of scale 10: 1 - 5/10; with scale 4, 5 away is past the end.
    assert length(item("", num_tokens=10), target_tokens=10) == 1.0
    assert length(item("", num_tokens=15), target_tokens=10) == 0.5
    assert length(item("", num_tokens=5), target_tokens=10) == 0.5
    assert length(item("", num_tokens=5), target_tokens=10, scale_tokens=4) == 0.0
    assert length(item("", num_tokens=9), target_tokens=10, scale_tokens=4) == 0.75


def test_length_penalty() -> None:
    assert length_penalty(item("", num_tokens=16), max_tokens=64) == -0.25
    assert length_penalty(item("", num_tokens=16, max_tokens=32)) == -0.5
    with pytest.raises(ValueError, match="max_tokens is not known"):
        length_penalty(item("", num_tokens=16))


@pytest.mark.parametrize(
    ("num_tokens", "expected"),
    # L_max 100, L_cache 20: free up to 80, then (80 - L)/20 down to -1 at 100, -1 beyond.
    [(0, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (100, -1.0), (101, -1.0), (500, -1.0)],
)
def test_overlong_is_equation_13_of_dapo(num_tokens: int, expected: float) -> None:
    assert overlong(item("", num_tokens=num_tokens), buffer_tokens=20, max_tokens=100) == pytest.approx(expected)
    assert overlong(item("", num_tokens=num_tokens, max_tokens=100), buffer_tokens=20) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>a</think><answer>b</answer>", 1.0),
        ("\n<think>\na\n</think>\n\n<answer>\nb\n</answer>\n", 1.0),
        ("<think></think><answer>b</answer>", 1.0),
        ("<think>a</think><answer> </answer>", 0.0),
        ("<think>a</think><answer>b</answer> and more", 0.0),
        ("well <think>a</think><answer>b</answer>", 0.0),
        ("<think>a</think> so <answer>b</answer>", 0.0),
        ("<answer>b</answer><think>a</think>", 0.0),
        ("<think>a<answer>b</answer></think>", 0.0),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0.0),
        ("<think>a<think>a</think><answer>b</answer>", 0.0),
        ("<think>a</think><answer>b", 0.0),
        ("", 0.0),
    ],
)
def test_format(text: str, expected: float) -> None:
    assert response_format(item(text)) == expected


def test_format_without_thought_and_with_an_opened_tag() -> None:
    assert response_format(item("<answer>b</answer>"), think_tag=None) == 1.0
    assert response_format(item("<answer>b</answer>")) == 0.0
    assert response_format(item("a</think><answer>b</answer>"), prefilled=True) == 1.0
    assert response_format(item("<think>a</think><answer>b</answer>"), prefilled=True) == 0.0
    assert response_format(item("<reason>a</reason><out>b</out>"), think_tag="reason", answer_tag="out") == 1.0


def test_format_takes_linear_time() -> None:
    started_s = time.monotonic()
    for text in (
        "<think>" * 50_000,
        "<think>" + " " * 300_000,
        "<think></think>" + " " * 300_000 + "<answer>" + " " * 300_000 + "</answer>",
        " " * 300_000,
    ):
        assert response_format(item(text)) == 0.0
    assert time.monotonic() - started_s < 2.0
