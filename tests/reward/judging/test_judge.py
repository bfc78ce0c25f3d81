"""What each mode asks of a judge, and what score comes of its verdict."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from reward.judging.asking import Judged
from reward.types import RewardOutcome
from tests.reward.judging.asking import items, judge, judged
from tests.reward.judging.scripted_judge import AskedOfJudge, asked_of, judging, reply
from tests.rollout.endpoint.scripted_server import Reply, serving

OK, ERROR, INVALID = RewardOutcome.OK, RewardOutcome.ERROR, RewardOutcome.INVALID
RUBRIC = """
[[criteria]]
name = "sources"
question = "Is every claim backed by a source?"
weight = 2.0
scale = [0, 4]

[[criteria]]
name = "brief"
question = "Is it brief?"

[[criteria]]
name = "apology"
question = "Does it apologise?"
weight = -0.5
"""


def values(found: Judged) -> list[float | None]:
    return [answer.value for answer in found.answers]


def test_a_score_is_the_place_in_the_scale() -> None:
    def says(asked: AskedOfJudge) -> str:
        assert asked.texts["QUESTION"] == "q"
        assert "COMPLETION" in asked.system
        return asked.says(score=len(asked.texts["COMPLETION"]), reason="by\nits length")

    with serving(judging(says)) as server:
        (found,) = judged(judge(server.base_url, scale=[2, 6], extra={"top_p": 0.5}), items("ab", "abc", "abcdef"))
    assert values(found) == [0.0, 0.25, 1.0]
    assert found.answers[1].detail == "judge: 3: by its length"
    assert found.answers[1].verdict == {"mode": "score", "says": 3, "reason": "by its length"}
    path, body, headers = server.requests[0]
    assert path == "/v1/chat/completions"
    assert {key: body[key] for key in ("model", "temperature", "max_tokens", "top_p")} == {
        "model": "m",
        "temperature": 0.0,
        "max_tokens": 1024,
        "top_p": 0.5,
    }
    assert "Authorization" not in headers
    cost = found.cost
    assert (cost.calls, cost.cached, cost.attempts, cost.prompt_tokens, cost.completion_tokens) == (3, 0, 3, 300, 30)
    assert cost.asked_s > 0


def test_a_reference_is_shown_and_answered_with_true_or_false() -> None:
    def says(asked: AskedOfJudge) -> str:
        assert asked.texts["REFERENCE"] == "Paris"
        return "I think so.\n```json\n" + asked.says(correct=asked.texts["COMPLETION"] == "It is Paris.") + "\n```\n"

    with serving(judging(says)) as server:
        group = items("It is Paris.", "Rome", ground_truth="Paris")
        (found,) = judged(judge(server.base_url, mode="reference"), group)
    assert values(found) == [1.0, 0.0]


def test_a_rubric_is_a_weighted_sum(tmp_path: Path) -> None:
    path = tmp_path / "rubric.toml"
    path.write_text(RUBRIC)

    def says(asked: AskedOfJudge) -> str:
        assert "- sources, from 0 to 4: Is every claim backed by a source?" in asked.system
        assert "Speak of rivers." in asked.system
        return asked.says(scores=json.loads(asked.texts["COMPLETION"]))

    good, bad = {"sources": 3, "brief": 1, "apology": 0}, {"sources": 0, "brief": 0.5, "apology": 1}
    with serving(judging(says)) as server:
        config = judge(server.base_url, mode="rubric", rubric=str(path), instructions="Speak of rivers.")
        group = items(*(json.dumps(one) for one in (good, bad, {"sources": 3, "brief": 1})))
        (found,) = judged(config, group)
    # (2 * 3/4 + 1 * 1) / 3 and (0.5 - 0.5) / 3; the last says nothing of apology.
    assert values(found) == [pytest.approx(2.5 / 3), 0.0, None]
    assert found.answers[2].outcome is INVALID
    assert found.answers[2].detail == "judge: the scores are not those of sources, brief, apology"


def test_pairs_are_compared_in_both_orders_and_disagreement_is_a_draw() -> None:
    def says(asked: AskedOfJudge) -> str:
        a, b = asked.texts["COMPLETION A"], asked.texts["COMPLETION B"]
        if {a, b} == {"x", "xx"}:
            return asked.says(better="A")  # whichever stands first
        return asked.says(better="tie" if len(a) == len(b) else "A" if len(a) > len(b) else "B")

    with serving(judging(says)) as server:
        (found,) = judged(judge(server.base_url, mode="pairwise"), items("x", "xx", "xxx", "yyy"))
    assert len(server.requests) == 12
    # x: draws with xx; xx: the same; xxx and yyy: win twice and draw.
    assert values(found) == [
        pytest.approx(0.5 / 3),
        pytest.approx(0.5 / 3),
        pytest.approx(2.5 / 3),
        pytest.approx(2.5 / 3),
    ]
    verdict = found.answers[0].verdict
    assert verdict is not None
    assert [(one["sample_index"], one["outcome"]) for one in verdict["against"]] == [(1, 0.5), (2, 0.0), (3, 0.0)]
    assert verdict["against"][0]["reasons"] == ["so it is", "so it is"]
    assert found.answers[2].detail == "judge: wins 83% of 3 comparisons"


def test_comparisons_without_a_verdict_are_left_out_and_too_few_are_no_score() -> None:
    def says(asked: AskedOfJudge) -> str:
        texts = {asked.texts["COMPLETION A"], asked.texts["COMPLETION B"]}
        if "bad" in texts and texts != {"bad", "a"}:
            return "I cannot say."
        return asked.says(better="A" if asked.texts["COMPLETION A"] == "a" else "B")

    with serving(judging(says)) as server:
        (found,) = judged(judge(server.base_url, mode="pairwise"), items("a", "b", "c", "bad"))
    # b and c: the judge says B in both orders, a draw. bad was compared with a alone, of three.
    assert values(found) == [1.0, 0.25, 0.25, None]
    assert found.answers[3].outcome is INVALID
    assert "no verdict with the request's code" in found.answers[3].detail


def test_opponents_are_fewer_comparisons() -> None:
    with serving(judging(lambda asked: asked.says(better="tie"))) as server:
        (found,) = judged(judge(server.base_url, mode="pairwise", opponents=2), items(*"abcdef"))
    assert len(server.requests) == 12  # six in a ring, both orders
    assert values(found) == [0.5] * 6
    verdict = found.answers[0].verdict
    assert verdict is not None
    assert verdict["of"] == 2


def test_a_rank_is_one_request_for_the_group_in_an_order_of_the_seed() -> None:
    def says(asked: AskedOfJudge) -> str:
        texts = {int(name.split()[1]): text for name, text in asked.texts.items() if name != "QUESTION"}
        best = sorted(texts, key=lambda number: -len(texts[number]))
        first, second, third, last = best
        return asked.says(ranking=[first, [second, third], last])

    group, orders = items("a", "bb", "cc", "dddd"), []
    for seed in range(6):
        with serving(judging(says)) as server:
            (found,) = judged(judge(server.base_url, mode="rank"), group, seed=seed)
        # Places 1, 2.5, 2.5 and 4 of 4.
        assert values(found) == [0.0, 0.5, 0.5, 1.0]
        ((_, body, _),) = server.requests
        orders.append(list(asked_of(body).texts.values())[1:])
        verdict = found.answers[3].verdict
        assert verdict is not None
        assert orders[-1][verdict["shown_as"] - 1] == "dddd"
        assert (verdict["place"], verdict["of"]) == (1, 4)
    assert len({tuple(order) for order in orders}) > 1
    with serving(judging(says)) as server:
        judged(judge(server.base_url, mode="rank"), group, seed=0)
    assert list(asked_of(server.requests[0][1]).texts.values())[1:] == orders[0]


def test_rules_stand_before_the_texts_where_there_is_no_system_turn() -> None:
    def script(_path: str, body: Any) -> Reply:
        (message,) = body["messages"]
        assert message["role"] == "user"
        rules, _, texts = message["content"].partition("\n\n<<<QUESTION ")
        parts = [{"content": rules}, {"content": f"<<<QUESTION {texts}"}]
        return reply(asked_of({"messages": parts}).says(score=4))

    with serving(script) as server:
        (found,) = judged(judge(server.base_url, system_turn=False), items("a"))
    assert values(found) == [0.4]


@pytest.mark.parametrize(
    ("mode", "says", "wrong"),
    [
        ("score", {"score": 3}, {"score": 11}),
        ("reference", {"correct": True}, {"correct": 1}),
        ("rubric", {"scores": {"sources": 4, "brief": 0.5, "apology": 0}}, {"scores": {"sources": 4}}),
        ("pairwise", {"better": "tie"}, {"better": "C"}),
        ("rank", {"ranking": [[2, 1]]}, {"ranking": ["A"]}),
    ],
)
def test_a_structured_reply_has_the_schema_of_a_verdict(
    mode: str, says: dict[str, Any], wrong: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "rubric.toml"
    path.write_text(RUBRIC)
    schemas: list[tuple[AskedOfJudge, Any]] = []

    def script(_path: str, body: Any) -> Reply:
        form = body["response_format"]
        assert (form["type"], form["json_schema"]["strict"]) == ("json_schema", True)
        asked = asked_of(body)
        schemas.append((asked, form["json_schema"]["schema"]))
        return reply(asked.says(**says))

    with serving(script) as server:
        params = {"rubric": str(path)} if mode == "rubric" else {}
        (found,) = judged(judge(server.base_url, mode=mode, structured=True, **params), items("a", "b"))
    assert [answer.outcome for answer in found.answers] == [OK, OK]
    for asked, schema in schemas:
        jsonschema.validate(json.loads(asked.says(**says)), schema)
        assert next(iter(schema["properties"])) == "id"
        for bad in (json.loads(asked.says(**wrong)), {**json.loads(asked.says(**says)), "id": asked.fence_code}):
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(bad, schema)


@pytest.mark.parametrize("mode", ["rank", "pairwise"])
def test_one_completion_alone_cannot_be_compared(mode: str) -> None:
    with serving(judging(lambda asked: "")) as server:
        (found,) = judged(judge(server.base_url, mode=mode), items("a"))
    assert server.requests == []
    (answer,) = found.answers
    assert (answer.outcome, answer.detail) == (ERROR, f"judge: mode {mode} compares completions, and the group has one")


def test_the_thought_of_a_completion_is_not_read_unless_it_is_asked_for() -> None:
    texts = ("<think>be nice to me</think> 4", "<think>never ended")
    for reads, seen in (
        ("answer", ["4", ""]),
        ("completion", ["< think>be nice to me< /think> 4", "< think>never ended"]),
    ):
        with serving(judging(lambda asked: asked.says(score=1))) as server:
            judged(judge(server.base_url, reads=reads), items(*texts))
        assert sorted(asked_of(body).texts["COMPLETION"] for _, body, _ in server.requests) == sorted(seen)


@pytest.mark.parametrize(
    ("says", "detail"),
    [
        ({"score": 11}, "the score is 11, which is not from 0 to 10"),
        ({"score": -1}, "the score is -1, which is not from 0 to 10"),
        ({"score": "7"}, "the score is '7', which is no number"),
        ({"score": True}, "the score is True, which is no number"),
        ({"score": None}, "the score is None, which is no number"),
        ({"score": [7]}, "the score is [7], which is no number"),
        ({"score": 10**400}, "the score is 1000"),
        ({"scores": 7}, "the verdict says 'scores', asked was 'score'"),
        ({"score": 7, "bonus": 3}, "the verdict says 'score', 'bonus', asked was 'score'"),
        ({}, "the verdict says nothing, asked was 'score'"),
    ],
)
def test_a_verdict_that_says_something_else_is_invalid(says: dict[str, Any], detail: str) -> None:
    with serving(judging(lambda asked: asked.says(**says))) as server:
        (found,) = judged(judge(server.base_url), items("a"))
    (answer,) = found.answers
    assert (answer.outcome, answer.value) == (INVALID, None)
    assert answer.detail.startswith(f"judge: {detail}")


def test_a_reply_that_was_cut_off_says_so_and_an_empty_one_has_no_verdict() -> None:
    with serving(lambda _path, _body: reply("Let me think", finish_reason="length")) as server:
        (found,) = judged(judge(server.base_url), items("a"))
    assert found.answers[0].detail.startswith("judge: the reply was cut off at max_tokens: ")
    with serving(lambda _path, _body: reply(None)) as server:
        (found,) = judged(judge(server.base_url), items("a"))
    assert found.answers[0].outcome is INVALID
