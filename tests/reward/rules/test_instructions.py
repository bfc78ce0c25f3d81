"""Each kind of instruction of IFEval with texts that follow it and texts that do not."""

import time
from typing import Any

import pytest

from reward.config import RewardConfig
from reward.row_checks import bad_rows
from reward.rules.instruction_kinds import KINDS, NOT_CHECKED, count_sentences
from reward.rules.instructions import instructions
from tests.reward.samples import item, prompt

CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("keywords:existence", {"keywords": ["cat", "Dog"]}, ["A CAT and a dog.", "dogcats"], ["a cat", ""]),
    (
        "keywords:frequency",
        {"keyword": "cat", "frequency": 2, "relation": "at least"},
        ["cat Cat", "cats, cats, cats"],
        ["a cat"],
    ),
    ("keywords:frequency", {"keyword": "cat", "frequency": 2, "relation": "less than"}, ["a cat", "dog"], ["cat cat"]),
    ("keywords:forbidden_words", {"forbidden_words": ["cat", "a.b"]}, ["concatenate", "axb"], ["a Cat.", "the a.b c"]),
    (
        "keywords:letter_frequency",
        {"letter": "z", "let_frequency": 2, "let_relation": "at least"},
        ["Zz", "pizza"],
        ["zoo"],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": "at least"},
        ["One. Two! Three?"],
        ["One. Two", "Dr. No et al. Two."],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": "less than"},
        ["One. Two."],
        ["One. Two. Three"],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["a\n***\nb", "***\na\n***\nb\n***"],
        ["a", "a\n\nb", "a***b***c", "a\n***\n\n***\nb"],
    ),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, ["one two three", "a-b-c"], ["a b"]),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, ["a b"], ["a b c"]),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Weak"},
        ['x y\n\n"Weak, it is', "x\n\n\n\nweak"],
        ["weak\n\nx", "x\n\nweakly", "x\n\nweak\n\ny", "weak"],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["[name] at [place]", "[a][b][c]"],
        ["[name]", "[a [b]"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        ["x\nP.S. y", "x\n\n**p. s.** y"],
        ["PS y", "a p.s. b"],
    ),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["x\nP.P.S. y"], ["x\nP.S. y"]),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n* b", "- a\n  - b", "x\n* a\n- b"],
        ["* a", "* a\n* b\n* c", "**a**\n**b**"],
    ),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is maybe.", "Well. My answer is no."],
        ["yes", "My answer is"],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* and *b*", "**a** *b*", "**a****b**"],
        ["**a**", "* *  * *", "*a\nb*"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "PART", "num_sections": 2},
        ["PART 1 a PART 2 b", "PART1\nPART2"],
        ["PART 1 a", "PART one PART two"],
    ),
    ("detectable_format:json_format", {}, ['{"a": 1}', "```json\n[1]\n```", "3"], ["{a: 1}", "x [1]", "[" * 5000]),
    ("detectable_format:title", {}, ["<<A title>>\nx", "x <<y>>"], ["<<>>", "<title>", "<< >>", "<<a\nb>>"]),
    (
        "combination:two_responses",
        {},
        ["a\n******\nb", "******a******b******"],
        ["a", "a ****** a", "a ****** b ****** c", "a ******  ****** b"],
    ),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Say this."},
        ["Say this. Then", " say THIS."],
        ["This", "I say this."],
    ),
    (
        "startend:end_checker",
        {"end_phrase": "Is that all?"},
        ["x. is that all?", 'x "Is that all?"'],
        ["Is that all? Yes."],
    ),
    ("startend:quotation", {}, ['"x"', ' "x y" '], ['"x', "x", '"']),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["A BIG cat", "ONE-TWO TWO"],
        ["BIG cat", "Big Cat"],
    ),
    ("change_case:english_capital", {}, ["ALL BIG, 1!"], ["ALl", "1"]),
    ("change_case:english_lowercase", {}, ["all small, 1!"], ["aLl", "1"]),
    ("punctuation:no_comma", {}, ["a; b"], ["a, b"]),
]


@pytest.mark.parametrize(("name", "arguments", "follow", "miss"), CASES)
def test_kinds(name: str, arguments: dict[str, Any], follow: list[str], miss: list[str]) -> None:
    assert [text for text in follow if not KINDS[name](text, **arguments)] == []
    assert [text for text in miss if KINDS[name](text, **arguments)] == []


def test_every_kind_is_tried_and_every_one_of_ifeval_is_known() -> None:
    assert {name for name, *_ in CASES} == set(KINDS)
    assert len(KINDS) + len(NOT_CHECKED) == 25


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("One. Two! Three? Four", 4),
        ("Dr. Smith met Mr. J. Doe, e.g. at 3.5 pm. He left.", 2),
        ("Wait... what?!", 2),
        ('He said "no." She left.', 2),
        ("1. First point.\n2. Second point.", 2),
        ("Take vitamin C.", 1),
        ("", 0),
        ("...", 0),
    ],
)
def test_sentences(text: str, number: int) -> None:
    assert count_sentences(text) == number


@pytest.mark.parametrize("piece", ["\n", "<<x", "*", "[", "a. ", "p. ", '"', "```json", "a\n\n", "***"])
def test_kinds_take_linear_time(piece: str) -> None:
    text = piece * (60_000 // len(piece))
    for name, arguments, *_ in CASES:
        started_s = time.monotonic()
        KINDS[name](text, **arguments)
        assert time.monotonic() - started_s < 1.0, name


ROW: dict[str, object] = {
    "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
    "kwargs": [{}, {"num_words": 2.0, "relation": "at least", "keyword": None}],
}


def test_all_or_a_share_and_which_were_missed() -> None:
    answers = {"two words": (1.0, 1.0), "two, words": (0.0, 0.5), "one": (0.0, 0.5), "": (0.0, 0.0), ",": (0.0, 0.0)}
    for text, expected in answers.items():
        assert (
            instructions(item(text, None, row=ROW)),
            instructions(item(text, None, row=ROW), score="share"),
        ) == expected
    assert instructions(item("one", None, row=ROW)).detail == "does not follow length_constraints:number_words"
    assert instructions(item("two words", None, row=ROW)).detail == "follows all"
    assert instructions(item("<think>well, well</think>two words", None, row=ROW)) == 1.0
    assert instructions(item("<think>two words", None, row=ROW)) == 0.0


def test_rows_that_cannot_be_scored() -> None:
    config = RewardConfig.model_validate({"functions": [{"function": "instructions"}]})
    rows: list[dict[str, object]] = [
        ROW,
        {},
        {"instruction_id_list": ["punctuation:no_coma"]},
        {"instruction_id_list": ["language:response_language"], "kwargs": [{"language": "de"}]},
        {"instruction_id_list": ["punctuation:no_comma"], "kwargs": []},
        {"instruction_id_list": ["startend:end_checker"], "kwargs": [{"end": "x"}]},
        {"instruction_id_list": ["startend:end_checker"], "kwargs": [{}]},
        {
            "instruction_id_list": ["length_constraints:number_words"],
            "kwargs": [{"num_words": "9", "relation": "at least"}],
        },
    ]
    found = bad_rows(config, [prompt(None, row) for row in rows])
    assert sorted(found) == [1, 2, 3, 4, 5, 6, 7]
    assert found[1] == "instructions: column 'instruction_id_list' has no list of instructions, but NoneType"
    assert found[2].startswith("instructions: the instruction 'punctuation:no_coma' cannot be checked: known are keyw")
    assert found[3].endswith("cannot be checked: which language a text is in takes a model to tell")
    assert found[5] == "instructions: instruction 'startend:end_checker': end: no such key; allowed here: end_phrase"
    assert found[6].endswith("end_phrase: missing; this parameter has no default")
    assert found[7].endswith("num_words: got '9', allowed: an integer")
