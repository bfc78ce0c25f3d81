"""Short answers against several truths: values worked out by hand from SQuAD's definitions."""

import pytest

from reward.rules.several_truths import f1, text_match, token_f1, truths_of, words_of
from tests.reward.samples import item


def test_words() -> None:
    assert words_of("The  Eiffel-Tower, (in) a “Paris”!") == ["eiffeltower", "in", "paris"]
    assert words_of("An U.S. $5") == ["us", "5"]
    assert words_of("«Überall» — the") == ["überall"]
    assert words_of("A") == ["a"]
    assert words_of(" ") == []


@pytest.mark.parametrize(
    ("answer", "truth", "expected"),
    [
        ("eiffel tower", "eiffel tower", 1.0),
        ("big eiffel tower", "eiffel tower", 2 * 2 / 5),
        ("eiffel", "eiffel tower", 2 * 1 / 3),
        ("x x y", "x x x z", 2 * 2 / 7),  # x counts twice, not three times
        ("rome", "paris", 0.0),
        ("", "paris", 0.0),
        ("", "", 1.0),
    ],
)
def test_f1(answer: str, truth: str, expected: float) -> None:
    assert f1(answer.split(), truth.split()) == expected


def test_the_nearest_truth_counts() -> None:
    row = {"aliases": ["New York City", "Big Apple"]}
    seen = item("<answer>the big Apple</answer>", "NYC", row=row)
    assert token_f1(seen, aliases="aliases") == 1.0
    assert text_match(seen, aliases="aliases") == 1.0
    assert text_match(seen) == 0.0
    near = token_f1(item("The answer is New York.", "NYC", row=row), aliases="aliases")
    assert (near, near.detail) == (2 * 2 / 5, "nearest to 'New York City'")


def test_a_truth_that_is_an_article() -> None:
    assert [text_match(item(text, "A")) for text in ("A", "a", "", ".", "the", "B")] == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]


def test_a_truth_in_the_answer() -> None:
    long = item("It was in New York City, in 1999.", "new york city")
    assert text_match(long) == 0.0
    assert text_match(long, contains=True) == 1.0
    assert text_match(item("It was York, not new", "new york"), contains=True) == 0.0
    assert text_match(item("Yorkshire", "york"), contains=True) == 0.0


def test_where_truths_stand() -> None:
    squad = {"answers": {"text": ["Denver Broncos", "Broncos", "Broncos"], "answer_start": [177, 184, 184]}}
    trivia = {"answer": {"value": "Sinclair Lewis", "aliases": ["Harry Sinclair Lewis"], "type": "WikipediaEntity"}}
    assert truths_of(item("x", None, row=squad), "answers") == ["Denver Broncos", "Broncos"]
    assert truths_of(item("x", None, row=trivia), "answer") == ["Sinclair Lewis", "Harry Sinclair Lewis"]
    assert truths_of(item("x", "1", row={"a": {"b": [1, 1.5, True]}}), "a.b") == ["1", "1.5"]
    for truth, row in ((None, {}), (" ", {"aliases": [""]})):
        with pytest.raises(ValueError, match="it needs a truth, and the row has no ground truth and none in column"):
            token_f1(item("x", truth, row=row), aliases="aliases")
