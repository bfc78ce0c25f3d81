"""A group is posted, scores come back; what comes else."""

import json
from pathlib import Path
from typing import Any

import pytest

from reward.judging.config import HttpConfig
from reward.types import RewardOutcome
from rollout.types import FinishReason
from tests.reward.judging.asking import items, judged
from tests.rollout.endpoint.scripted_server import Reply, serving

OK, ERROR, INVALID = RewardOutcome.OK, RewardOutcome.ERROR, RewardOutcome.INVALID


def http(address: str, **params: Any) -> HttpConfig:
    return HttpConfig.model_validate({"url": address, **params})


def scores(*values: object) -> Reply:
    return 200, {}, json.dumps({"scores": values})


def test_a_group_is_posted_and_each_completion_has_its_score(tmp_path: Path) -> None:
    group = items("a", "bb", ground_truth="4", num_tokens=3, row={"level": 2, "secret": "s"}, task="sums")
    group += items("ccc", finish_reason=FinishReason.LENGTH)
    with serving(lambda _path, _body: scores(1, {"score": 0.5, "detail": "half\nof it"}, None)) as server:
        config = http(f"{server.base_url}/score", columns=["level"])
        (found,) = judged(config, group, run_dir=tmp_path)
        (again,) = judged(config, group, run_dir=tmp_path)
    ((path, body, _),) = server.requests
    assert path == "/v1/score"
    assert {key: body[key] for key in ("question", "prompt", "ground_truth", "task", "row")} == {
        "question": "q",
        "prompt": "q",
        "ground_truth": "4",
        "task": "sums",
        "row": {"level": 2},
    }
    assert body["completions"][1] == {
        "text": "bb",
        "finish_reason": "stop",
        "num_tokens": 3,
        "sample_index": 1,
        "scores": {},
    }
    assert body["completions"][2]["finish_reason"] == "length"
    assert [(one.outcome, one.value) for one in found.answers] == [(OK, 1.0), (OK, 0.5), (INVALID, None)]
    assert found.answers[1].detail == "judge: half of it"
    assert found.answers[2].detail == "judge: the server gave None instead of a number"
    assert again.answers == found.answers
    assert (found.cost.calls, again.cost.calls, again.cost.cached) == (1, 0, 1)


@pytest.mark.parametrize("said", ['"1"', "true", "[1]", "{}", "NaN", "Infinity", "1e999", "1" + "0" * 400])
def test_what_is_no_finite_number_is_invalid(said: str, tmp_path: Path) -> None:
    with serving(lambda _path, _body: (200, {}, f'{{"scores": [0.25, {said}]}}')) as server:
        for _ in range(2):  # also where it is read from the journal
            (found,) = judged(http(server.base_url), items("a", "b"), run_dir=tmp_path)
            assert [one.outcome for one in found.answers] == [OK, INVALID]
    assert len(server.requests) == 1
    assert "NaN" not in next((tmp_path / "verdicts").iterdir()).read_text()


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (scores(1.0), "the server gave 1 scores for 2 completions"),
        ((200, {}, "[1, 2]"), "the server gave no list `scores` for 2 completions"),
        ((200, {}, '{"scores": {"0": 1}}'), "no list `scores`"),
        ((200, {}, "oops"), "something that is no JSON: oops"),
        ((422, {}, "what?"), "answered with status 422: what?"),
        ((404, {}, ""), "mend url or api_key_env of the reward function 'judge'"),
    ],
)
def test_what_is_no_list_of_scores_is_an_error_of_the_group(answer: Reply, detail: str) -> None:
    with serving(lambda _path, _body: answer) as server:
        (found,) = judged(http(server.base_url), items("a", "b"))
    assert [one.outcome for one in found.answers] == [ERROR, ERROR]
    assert detail in found.answers[0].detail
