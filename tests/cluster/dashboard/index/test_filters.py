"""The filter language: what parses, what does not, and that nothing else happens."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.dashboard.index.filter_fields import BY_NAME, FIELDS, VIEWS
from cluster.dashboard.index.filter_tree import And, Between, Compare, Flag, Node, Not, Or
from cluster.dashboard.index.filters import FilterError, parse_filter, parse_sort


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", None),
        ("  ", None),
        ("reward<1", Compare("reward", "<", 1.0)),
        (" reward <= -.5e1 ", Compare("reward", "<=", -5.0)),
        ("adv!=none", Compare("advantage", "!=", None)),
        ("step:400-412", Between("step", 400, 412)),
        ("adv:-1--0.5", Between("advantage", -1, -0.5)),
        ("step:4", Between("step", 4, 4)),
        ("correct", Flag("correct")),
        ("!truncated", Not(Flag("truncated"))),
        ("reward.math=0", Compare("reward.math", "=", 0.0)),
        ("worker=sampler-0", Compare("worker", "=", "sampler-0")),
        ("answer=none", Compare("answer", "=", None)),
        ('answer="none"', Compare("answer", "=", "none")),
        (r'text~"\\boxed \"x\""', Compare("text", "~", r'\boxed "x"')),
        ("wait", Compare("text", "~", "wait")),
        ('"a & b"', Compare("text", "~", "a & b")),
        ("question!~2+2=4", Compare("question", "!~", "2+2=4")),
    ],
)
def test_comparisons(text: str, tree: Node | None) -> None:
    assert parse_filter(text) == tree


def test_and_binds_closer_than_or() -> None:
    a, b, c = Flag("correct"), Flag("truncated"), Flag("disagreed")
    assert parse_filter("correct | truncated & disagreed") == Or((a, And((b, c))))
    assert parse_filter("(correct|truncated)&!disagreed") == And((Or((a, b)), Not(c)))
    example = r'reward<1 & gap>1 & step:400-412 & text~"\\boxed"'
    assert parse_filter(example) == And(
        (
            Compare("reward", "<", 1.0),
            Compare("max_gap", ">", 1.0),
            Between("step", 400, 412),
            Compare("text", "~", "\\boxed"),
        )
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rewad<1", "filter, character 1: there is no field 'rewad'; did you mean reward"),
        ("reward<1 & ", "character 12: got the end, expected a field"),
        ("reward<x", "character 8: got 'x', expected a number for reward"),
        ("reward<1x", "character 8: got '1x', expected a number"),
        ("reward", "expected a comparison behind reward, for example reward>0"),
        ("reward~1", "reward is a number: ~ is for text"),
        ("correct=1", "character 1: correct is a flag: write correct or !correct"),
        ("worker<a", "worker is text: allowed are = != ~ !~"),
        ("(correct", "expected )"),
        ("correct & step:5-1", "character 16: step:5-1 holds no number: write the lower one first"),
        ("correct truncated", "character 9: got 'truncated', expected & or | or the end"),
        ('text~"abc', "a text in quotes has no end"),
        ("text=abc", "text is searched: allowed are ~ and !~"),
        ("!" * 50 + "correct", "more than 40 parentheses"),
        ("&".join(["correct"] * 101), "more than 100 comparisons"),
        ("x" * 2001, "the filter has 2001 characters, allowed: 2000"),
        ("__class__=1; drop table rows", "there is no field '__class__'"),
    ],
)
def test_what_does_not_parse_says_where_and_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse_filter(text)
    assert message in str(caught.value)


def test_sorts() -> None:
    assert parse_sort("") == ("", False)
    assert parse_sort("-gap") == ("max_gap", True)
    assert parse_sort("reward.format") == ("reward.format", False)
    for wrong in ("text", "x; drop table rows", "reward."):
        with pytest.raises(FilterError, match="cannot sort by"):
            parse_sort(wrong)


_PIECES = st.sampled_from(
    [
        *BY_NAME,
        "&",
        "|",
        "!",
        "(",
        ")",
        "<",
        "<=",
        "=",
        "!=",
        "~",
        "!~",
        ":",
        "1",
        "-2.5",
        "none",
        '"a"',
        '"',
        "\\",
        " ",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(_PIECES, max_size=14).map("".join)))
def test_nothing_but_a_filter_error_is_raised(text: str) -> None:
    for parse in (parse_filter, parse_sort):
        with contextlib.suppress(FilterError):
            parse(text)


def test_the_saved_views_parse() -> None:
    assert len({view.name for view in VIEWS}) == len(VIEWS) >= 6
    for view in VIEWS:
        parse_filter(view.filter)
        parse_sort(view.sort)
    assert all(field.type in ("number", "text", "flag") for field in FIELDS)
