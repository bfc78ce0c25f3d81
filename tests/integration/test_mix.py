"""Two tasks and a curriculum in one run: it is stopped and resumed, and ends bit for bit like one that never was."""

import json
import signal
from pathlib import Path

import pytest

from cluster.weights.run_state import read_run_state
from tests.integration import runs

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ONE_DIGIT = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
TASKS = [
    {
        "kind": "reasoning_gym",
        "name": name,
        "generator": "basic_arithmetic",
        "params": {**ONE_DIGIT, "operators": [sign], "allow_parentheses": False, "allow_negation": False},
        "size": 12,
    }
    for name, sign in (("sums", "+"), ("differences", "-"))
]
REWARD = [
    {"function": "math", "name": "sum_is_right", "tasks": ["sums"]},
    {"function": "exact_match", "tasks": ["differences"]},
]
WORDS = (
    "tiny",
    *runs.SHORT,
    f"task={json.dumps({'kind': 'mix', 'tasks': TASKS, 'weights': {'sums': 3}})}",
    f"reward.functions={json.dumps(REWARD)}",
    "curriculum.enabled=true",
    "checkpoint.every=1",
)


def test_a_mix_with_a_curriculum_is_stopped_and_resumed(tmp_path: Path) -> None:
    whole = runs.train(tmp_path / "whole", *WORDS)
    path = tmp_path / "stopped"
    run = runs.start(path, *WORDS)
    for step, number in ((2, signal.SIGTERM), (4, signal.SIGKILL)):
        run.wait_for_steps(step)
        runs.stop(run, number)
        assert len(runs.read_lines(path / "metrics.jsonl")) < 7, "it was stopped before its end"
        run = runs.start(path, "--resume", str(path))
    assert run.wait() == 0, run.output()

    assert runs.summary(path)["weights_digest"] == runs.summary(whole.path)["weights_digest"]
    states = [read_run_state(max((of / "checkpoints").glob("step-*"))).stream for of in (path, whole.path)]
    assert states[0] == states[1]
    places = states[1].places
    # Three of four prompts are sums, in every batch of four.
    assert (places["sums"].asked, places["differences"].asked) == (21, 7)
    assert places["sums"].passed > 21, "prompts were left out in passes after the first"
    lines = runs.read_lines(whole.path / "metrics.jsonl")
    assert {line["prompts/share_sums"] for line in lines} == {0.75}
    assert 0 < lines[-1]["prompts/pass_rate_mean"] < 1
    assert {"reward/component_sum_is_right", "reward/component_exact_match"} <= lines[-1].keys()
    evaluations = runs.read_lines(whole.path / "evaluations.jsonl")
    for line in evaluations:
        names = [f"eval/{task['name']}" for task in TASKS]
        of_tasks = [(line[f"{name}/questions"], line[f"{name}/pass_at_1"]) for name in names]
        assert line["eval/questions"] == sum(questions for questions, _ in of_tasks)
        right = sum(questions * share for questions, share in of_tasks)
        assert line["eval/pass_at_1"] == pytest.approx(right / line["eval/questions"])
