"""The pure functions behind the pages of rollouts, called in the browser that runs them."""

import math
from typing import Any

import pytest

from tests.browser.conftest import Dashboard

pytestmark = pytest.mark.browser


@pytest.fixture
def call(dashboard: Dashboard, page: Any) -> Any:
    """call(module, name, *arguments) -> what the module's function returns."""
    page.goto(dashboard.url("/"))
    page.locator("#app > *").first.wait_for()

    def called(module: str, name: str, *arguments: Any) -> Any:
        return page.evaluate(
            "async ([module, name, args]) => (await import('shoal/' + module + '.js'))[name](...args)",
            [module, name, list(arguments)],
        )

    return called


def test_differences_are_found_and_add_up_to_both_texts(call: Any) -> None:
    parts = call("parts/diff", "diffTexts", "the cat sat on 5", "the dog sat on 6")
    assert parts == [
        {"kind": "same", "text": "the "},
        {"kind": "left", "text": "cat "},
        {"kind": "right", "text": "dog "},
        {"kind": "same", "text": "sat on "},
        {"kind": "left", "text": "5"},
        {"kind": "right", "text": "6"},
    ]
    texts = ["", "a", "a b c\n\nd", "\\boxed{42}.", "a c\td", "x y z " * 40, "漢字 é \u202e", "a b c d" * 9]
    for left in texts:
        for right in texts:
            parts = call("parts/diff", "diffTexts", left, right)
            assert "".join(part["text"] for part in parts if part["kind"] != "right") == left
            assert "".join(part["text"] for part in parts if part["kind"] != "left") == right


def test_long_texts_without_anything_in_common_end_quickly(call: Any) -> None:
    parts = call(
        "parts/diff", "diffTexts", "".join(f"a{i} " for i in range(20_000)), "".join(f"b{i} " for i in range(20_000))
    )
    assert [part["kind"] for part in parts] == ["left", "right"]


def test_the_term_of_the_objective(call: Any) -> None:
    """min(A r, A clip(r, 0.8, 1.2)): the clip holds back what would go further in the direction of the advantage."""
    for advantage, ratio, term, clipped in (
        (1.0, 1.5, 1.2, True),
        (1.0, 0.5, 0.5, False),
        (-1.0, 0.5, -0.8, True),
        (-1.0, 1.5, -1.5, False),
        (0.0, 9.0, 0.0, False),
    ):
        assert call("tokens/math", "surrogate", advantage, ratio, 0.8, 1.2) == pytest.approx(term)
        assert call("tokens/math", "isClipped", advantage, ratio, 0.8, 1.2) is clipped


def test_the_numbers_of_tokens_are_those_of_the_loss(call: Any) -> None:
    """k3 of the gap cuts the ratio alone; the KL term is a part of what a token adds to the objective."""
    tokens = {"ids": [1, 2, 3], "loss_mask": [True, True, False]}
    tokens |= {"rollout_logprobs": [0.0, -50.0, -1.0], "policy_logprobs": [-30.0, 0.0, -1.0]}
    objective = {"clip": [0.8, 1.2], "kl_coef": 0, "has_reference": False, "differs": []}
    found = call("tokens/math", "deriveTokens", {"tokens": tokens, "advantage": 2.0, "objective": objective})
    assert found["k3"] == pytest.approx([math.exp(-20) - 1 + 30, math.exp(20) - 1 - 50, 0.0])
    assert found["credit"] == pytest.approx([2 * math.exp(-20), 2.4, 0.0])
    assert found["clipped"] == [False, True, False]

    tokens |= {"rollout_logprobs": [-1.0] * 3, "policy_logprobs": [-1.0] * 3, "ref_logprobs": [-0.5, -1.0, -2.0]}
    objective |= {"kl_coef": 0.1, "has_reference": True}
    rollout = {"tokens": tokens, "advantage": 2.0, "objective": objective, "updates_per_batch": 2}
    found = call("tokens/math", "deriveTokens", rollout)
    assert found["credit"] == pytest.approx([2 - 0.1 * (math.exp(0.5) - 1.5), 2.0, 0.0])
    found = call("tokens/math", "deriveTokens", {**rollout, "tokens": {**tokens, "ref_logprobs": None}})
    assert (found["credit"], found["clipped"]) == (None, [False, False, False])

    # Of another objective nothing is told but A r: there is no clip, and no KL in the term.
    tokens |= {"policy_logprobs": [-1.0, 0.0, -1.0]}
    other = {"clip": None, "kl_coef": 0.1, "has_reference": True, "differs": ["the surrogate is cispo"]}
    found = call("tokens/math", "deriveTokens", {**rollout, "tokens": tokens, "objective": other})
    assert found["credit"] == pytest.approx([2.0, 2 * math.e, 0.0])
    assert found["clipped"] is None


def test_after_a_quick_answer_the_next_event_is_not_kept_waiting(call: Any) -> None:
    pauses = [call("frame/paced", "pauseAfter", took) for took in (5, 20, 99, 250, 399, 400, 3000)]
    assert pauses == [300, 480, 600, 1200, 1200, 5000, 5000]


def test_blocks_cover_every_token_and_prefer_line_breaks(call: Any) -> None:
    pieces = ["x"] * 500
    pieces[150] = ".\n"
    assert call("tokens/math", "blocks", 500, pieces, 200) == [[0, 151], [151, 351], [351, 500]]
    assert call("tokens/math", "blocks", 3, None, 200) == [[0, 3]]
    assert call("tokens/math", "blocks", 0, None, 200) == []


def test_special_tokens_and_bytes_are_told_from_text(call: Any) -> None:
    kinds = {
        piece: call("tokens/math", "pieceKind", piece)
        for piece in ("<|im_end|>", "</s>", "<0xE2>", "<b>", "a<|b", "<0xE2")
    }
    assert kinds == {
        "<|im_end|>": "special",
        "</s>": "special",
        "<0xE2>": "byte",
        "<b>": "text",
        "a<|b": "text",
        "<0xE2": "text",
    }


def test_filter_search_and_range_become_one_filter(call: Any) -> None:
    assert call("rollouts/filter_language", "combined", "", "", "") == {"text": "", "shift": 0}
    assert call("rollouts/filter_language", "combined", "reward<1", "", "") == {"text": "reward<1", "shift": 0}
    assert call("rollouts/filter_language", "combined", "", 'say "x\\y"', "") == {
        "text": '"say \\"x\\\\y\\""',
        "shift": 0,
    }
    assert call("rollouts/filter_language", "combined", "reward<1", "b", "step:1-2") == {
        "text": 'step:1-2 & "b" & reward<1',
        "shift": 17,
    }
    assert call("rollouts/filter_language", "combined", "a | b", "", "step:1-2") == {
        "text": "step:1-2 & (a | b)",
        "shift": 12,
    }


def test_nothing_is_completed_inside_of_quotes(call: Any) -> None:
    fields = [{"name": "reward", "type": "number", "help": ""}]
    inserts = [one["insert"] for one in call("rollouts/filter_language", "completions", 'text~"a" & re', 13, fields)]
    assert inserts == ["reward"]
    assert call("rollouts/filter_language", "completions", 'text~"re', 8, fields) == []
    assert [one["insert"] for one in call("rollouts/filter_language", "completions", "phase!=e", 8, fields)] == ["eval"]


def test_pins_are_few_and_whole_addresses(call: Any) -> None:
    assert call("rollouts/pinned", "pinsOf", "train/1/g/0,nonsense,eval/2/h/1") == ["train/1/g/0", "eval/2/h/1"]
    assert call("rollouts/pinned", "togglePin", ["a", "b"], "a") == ["b"]
    assert call("rollouts/pinned", "togglePin", list("abcdefgh"), "i") == list("bcdefghi")
