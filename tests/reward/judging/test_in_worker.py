"""Judges in a reward worker: beside functions, for some rows alone, in many groups at once, and closed."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reward.config import RewardConfig
from reward.errors import RewardError
from reward.judging.asked import AskingSite
from reward.row_checks import bad_rows
from reward.types import GroupScores, RewardOutcome
from reward.worker import RewardWorker, validate_reward_config
from rollout.errors import ConfigError
from tests.reward.judging.scripted_judge import judging
from tests.reward.samples import group, prompt
from tests.rollout.endpoint.scripted_server import Reply, serving

pytestmark = pytest.mark.integration

OK, INVALID = RewardOutcome.OK, RewardOutcome.INVALID
Make = Callable[..., RewardWorker]
GOOD = judging(lambda asked: asked.says(score=len(asked.texts["COMPLETION"])))


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes workers, and closes them after the test."""
    workers: list[RewardWorker] = []

    def made(*functions: dict[str, Any], run_dir: Path | None = None, **fields: Any) -> RewardWorker:
        config = RewardConfig.model_validate({"functions": functions, **fields})
        workers.append(RewardWorker(config, "reward-0", asking=AskingSite(run_dir=run_dir)))
        return workers[-1]

    yield made
    for worker in workers:
        worker.close()


def judge(base_url: str, **fields: Any) -> dict[str, Any]:
    return {"function": "judge", **fields, "params": {"base_url": base_url, "model": "m", **fields.get("params", {})}}


def test_a_judge_is_a_component_beside_functions(make: Make, tmp_path: Path) -> None:
    with serving(GOOD) as server:
        functions = ({"function": "math"}, judge(server.base_url, name="kind", weight=0.5))
        worker = make(*functions, run_dir=tmp_path)
        right, wrong = worker.score(group(["#### 1", "#### 22"])).rewards
        again = make(*functions, run_dir=tmp_path).score(group(["#### 1", "#### 22"]))
    assert dict(right.components) == {"math": 1.0, "kind": 0.6}
    assert right.reward == pytest.approx(1.3)
    assert right.correct is True
    assert wrong.reward == pytest.approx(0.35)
    assert wrong.correct is False
    assert right.detail == "kind: 6: so it is"
    assert right.verdicts == {"kind": {"mode": "score", "says": 6, "reason": "so it is"}}
    assert len(server.requests) == 2
    assert again.cost is not None
    assert (again.cost.calls, again.cost.cached) == (0, 2)
    assert [result.verdicts for result in again.rewards] == [right.verdicts, wrong.verdicts]


def test_an_invalid_verdict_is_the_outcome_and_other_components_are_kept(make: Make) -> None:
    with serving(judging(lambda asked: "10 of 10!")) as server:
        scores = make({"function": "math"}, judge(server.base_url)).score(group(["#### 1"]))
    (result,) = scores.rewards
    assert (result.outcome, result.reward, dict(result.components)) == (INVALID, None, {"math": 1.0})
    assert result.detail == "judge: the reply has no verdict with the request's code"


def test_it_scores_the_rows_that_are_its_own(make: Make) -> None:
    with serving(GOOD) as server:
        worker = make({"function": "math", "tasks": ["sums"]}, judge(server.base_url, tasks=["words"]))
        sums, words = worker.score(group(["#### 1"], task="sums")), worker.score(group(["abc"], task="words"))
    assert [dict(one.rewards[0].components) for one in (sums, words)] == [{"math": 1.0}, {"judge": 0.3}]
    assert len(server.requests) == 1
    assert make({"function": "math"}).score(group(["#### 1"])).cost is None


def test_groups_that_wait_for_a_judge_are_not_in_each_others_way(make: Make) -> None:
    def slow(path: str, body: Any) -> Reply:
        time.sleep(0.5)
        return GOOD(path, body)

    with serving(slow) as server:
        worker = make(judge(server.base_url, params={"limits": {"requests_at_once": 64}}), children_per_worker=1)
        worker.start()
        found: list[GroupScores] = []
        threads = [
            threading.Thread(target=lambda n=n: found.append(worker.score(group([f"{n} {k}" for k in range(4)]))))
            for n in range(12)
        ]
        started_s = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # 48 answers of half a second, side by side, although there is one child; in turn they would take 24 s.
        assert time.monotonic() - started_s < 6.0
    assert all(result.outcome is OK for scores in found for result in scores.rewards)
    assert server.most_at_once > 16


def test_a_worker_that_is_closed_ends_what_it_asks(make: Make) -> None:
    def slow(path: str, body: Any) -> Reply:
        time.sleep(2.0)
        return GOOD(path, body)

    with serving(slow) as server:
        worker = make(judge(server.base_url))
        worker.start()
        errors: list[BaseException] = []

        def score() -> None:
            try:
                worker.score(group(["a"]))
            except RewardError as error:
                errors.append(error)

        thread = threading.Thread(target=score)
        thread.start()
        while not server.requests:
            time.sleep(0.01)
        started_s = time.monotonic()
        worker.close()
        thread.join(5.0)
        assert time.monotonic() - started_s < 1.5
    assert [str(error) for error in errors] == ["reward-0 was closed while it was scoring"]


@pytest.mark.parametrize(
    ("function", "params", "message"),
    [
        ("judge", {"model": "m"}, "params.base_url: missing; this parameter has no default"),
        (
            "judge",
            {"base_url": "h:1", "model": "m"},
            "base_url is 'h:1', expected an address such as http://host:8000/v1",
        ),
        ("judge", {"base_url": "http://u:p@h/v1", "model": "m"}, "has a user or password in it; set api_key_env"),
        ("judge", {"base_url": "http://h/v1", "modell": "m"}, "params.modell: no such key; did you mean params.model?"),
        ("judge", {"model": "m", "base_url": "http://h/v1", "api_key": "x"}, "did you mean params.api_key_env?"),
        (
            "judge",
            {"mode": "best"},
            "params.mode: got 'best', allowed: 'score', 'reference', 'rubric', 'pairwise' or 'rank'",
        ),
        (
            "judge",
            {"limits": {"deadline": 3}},
            "params.limits.deadline: no such key; did you mean params.limits.deadline_s?",
        ),
        (
            "judge",
            {"limits": {"requests_at_once": 0}},
            "params.limits.requests_at_once: got 0, allowed: greater than or",
        ),
        ("judge", {"scale": [5, 5]}, "scale is [5, 5], expected the lowest score first"),
        ("judge", {"mode": "rubric"}, "mode is rubric, and rubric is not set; set it to a TOML file of criteria"),
        ("judge", {"mode": "rubric", "rubric": "no.toml"}, "the rubric no.toml cannot be read: "),
        ("judge", {"rubric": "a.toml"}, "rubric is of mode rubric, and mode is score; leave one of them out"),
        ("judge", {"mode": "pairwise", "opponents": 3}, "opponents is 3, expected an even number"),
        ("judge", {"extra": {"messages": []}}, "extra has messages, which the judge sets itself; leave it out"),
        (
            "judge",
            {"structured": True, "extra": {"response_format": {}}},
            "structured is true and extra has a response",
        ),
        ("judge", {"temperature": "0"}, "params.temperature: got '0', allowed: a number"),
        ("http", {}, "params.url: missing; this parameter has no default"),
        ("http", {"url": "http://h/x", "model": "m"}, "params.model: no such key; allowed here: "),
        ("http", {"url": "ftp://h"}, "url is 'ftp://h', expected an address"),
    ],
)
def test_mistakes_are_one_sentence(function: str, params: dict[str, Any], message: str) -> None:
    needed = {"base_url": "http://h/v1", "model": "m"} if function == "judge" and "base_url" not in params else {}
    given = params if params == {"model": "m"} else {**needed, **params}
    config = RewardConfig.model_validate({"functions": [{"function": function, "params": given}]})
    with pytest.raises(ConfigError, match=f"reward function '{function}'") as raised:
        validate_reward_config(config)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no criteria, expected"),
        ("criteria = 3", "has no criteria, expected"),
        ("[[criteria]]\nname = 'a'", "criteria.1.question: missing"),
        ("[[criteria]]\nname = 'a b'\nquestion = 'q'", "name is 'a b', expected letters"),
        (
            "[[criteria]]\nname = 'a'\nquestion = 'q'\nwheight = 1",
            "criteria.1.wheight: no such key; did you mean criteria.1.weight?",
        ),
        ("[[criteria]]\nname = 'a'\nquestion = 'q'\nscale = [1, 1]", "expected the lowest number first"),
        ("[[criteria]]\nname = 'a'\nquestion = 'q'\nweight = -1", "no criterion with a weight above 0"),
        ("[[criteria]]\nname = 'a'\nquestion = 'q'\n" * 2, "two criteria named 'a'"),
        ("name = ", "cannot be read: Invalid value"),
        ("title = 'x'\n[[criteria]]\nname = 'a'\nquestion = 'q'", "has title, expected [[criteria]] alone"),
    ],
)
def test_mistakes_in_a_rubric_are_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rubric.toml"
    path.write_text(text)
    config = RewardConfig.model_validate(
        {"functions": [judge("http://h/v1", params={"mode": "rubric", "rubric": str(path)})]}
    )
    with pytest.raises(ConfigError, match="rubric") as raised:
        validate_reward_config(config)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_rows_without_a_ground_truth_are_refused_for_a_reference_alone() -> None:
    for mode, found in (("reference", {1: "judge: the row has no ground truth, and mode is reference"}), ("score", {})):
        config = RewardConfig.model_validate({"functions": [judge("http://h/v1", params={"mode": mode})]})
        assert bad_rows(config, [prompt("4"), prompt(None)]) == found


def test_what_does_not_go_together_is_refused() -> None:
    at = {"base_url": "http://h/v1", "model": "m"}
    for params, num_workers, message in (
        ({"gold": "maths"}, 1, "params.gold is 'maths', which is no other component"),
        ({"gold": "judge"}, 1, "params.gold is 'judge', which is no other component"),
        ({"limits": {"requests_per_minute": 3}}, 4, "params.limits.requests_per_minute is 3, which 4 reward workers"),
    ):
        functions = [{"function": "math"}, {"function": "judge", "params": {**at, **params}}]
        with pytest.raises(ValueError, match=message):
            RewardConfig.model_validate({"functions": functions, "num_workers": num_workers})
