import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.dashboard.figures.thresholds import facts_of
from cluster.dashboard.records import MetricTable
from cluster.dashboard.views.overview import overview
from cluster.dashboard.views.verdict import verdict
from tests.cluster.dashboard.small_runs import open_store, write_run

NOTHING = MetricTable(steps=[], columns={})


def rewards(*values: float | None) -> MetricTable:
    return MetricTable(steps=range(len(values)), columns={"reward/mean": values})


def evaluations(*accuracy: float | None, first: int = 0, questions: float = 300.0) -> MetricTable:
    columns = {"eval/pass_at_1": accuracy, "eval/questions": [questions] * len(accuracy)}
    return MetricTable(steps=[first + 20 * i for i in range(len(accuracy))], columns=columns)


def told(table: MetricTable, held_out: MetricTable = NOTHING, *findings: tuple[str, str]) -> dict[str, Any]:
    named = [{"severity": severity, "title": title} for severity, title in findings]
    return verdict(table, held_out, facts_of(None, table), named)


def links(answer: dict[str, Any]) -> list[tuple[str, Sequence[Any]]]:
    return [(part["page"], part["parts"]) for part in answer["parts"]]


def test_held_out_questions_decide() -> None:
    answer = told(rewards(*[0.9, 0.1] * 20), evaluations(0.5, 0.55, 0.64))
    assert answer["text"] == (
        "Learning: held-out accuracy 50.0 % -> 64.0 %, +14.0 points (95 %: +6.1 to +21.7), and nothing is wrong."
    )
    assert answer["text"] == "".join(
        part["text"] + joint for part, joint in zip(answer["parts"], answer["joints"], strict=True)
    )
    assert links(answer) == [("steps", []), ("step", ["eval", 40]), ("doctor", [])]
    assert answer["interval"] == {
        "value": pytest.approx(0.14),
        "low": pytest.approx(0.0611, abs=1e-3),
        "high": pytest.approx(0.2159, abs=1e-3),
    }


def test_what_is_within_chance_is_no_learning() -> None:
    answer = told(rewards(*[0.1] * 20, *[0.9] * 20), evaluations(0.5, 0.53))
    assert answer["learns"] == "unclear"
    assert answer["text"].startswith(
        "No clear change yet: held-out accuracy 50.0 % -> 53.0 %, +3.0 points (95 %: -5.0 "
    )
    assert told(rewards(), evaluations(0.6, 0.4))["text"].startswith(
        "Getting worse: held-out accuracy 60.0 % -> 40.0 %"
    )
    since = told(rewards(), evaluations(0.5, 0.7, first=10))
    assert "+20.0 points since step 10 (95 %" in since["text"]


def test_without_two_evaluations_the_reward_in_training_is_told_as_what_it_is() -> None:
    rising = [0.2 + 0.01 * i + (0.01 if i % 2 else -0.01) for i in range(40)]
    for held_out in (NOTHING, evaluations(0.181), evaluations(0.2, None)):
        answer = told(rewards(*rising), held_out)
        # Means of the first and the last ten: 0.245 and 0.545, as the jumps cancel out.
        assert answer["text"].startswith("Learning: reward in training 0.245 -> 0.545, +0.3 (95 %: +0.2"), answer[
            "text"
        ]
        assert links(answer)[1] == ("step", ["train", 39])
    flat = told(rewards(*[0.4, 0.6] * 10))
    assert (flat["learns"], flat["interval"]["value"]) == ("unclear", pytest.approx(0.0))


def test_a_young_run_is_not_judged() -> None:
    assert told(rewards())["text"] == "Too early to tell: no step so far, and nothing is wrong."
    assert told(rewards(0.5))["text"] == "Too early to tell: 1 step so far, and nothing is wrong."
    # A rise of 0.5 of jumps of 0.1 is no question: eleven steps are too few to know what they jump about by.
    rising = [0.1, 0.2, 0.1, 0.2, 0.3, 0.4, 0.3, 0.4, 0.6, 0.7, 0.6, 0.7]
    assert told(rewards(*rising[:11]))["interval"] is None
    assert told(rewards(*rising[:11]))["text"].startswith("Too early to tell: 11 steps so far")
    assert told(rewards(*rising))["learns"] == "learning"


def test_noise_alone_is_seldom_called_learning() -> None:
    """Of 95 % one in twenty is wrong, also where the noise is a guess from a dozen steps."""
    draw = random.Random(7)
    for num_steps in (12, 20, 30):
        learns = [told(rewards(*[draw.gauss(0.5, 0.1) for _ in range(num_steps)]))["learns"] for _ in range(2000)]
        assert 70 <= 2000 - learns.count("unclear") <= 115


def test_what_is_wrong_is_named() -> None:
    one = told(rewards(), evaluations(0.5, 0.8), ("warning", "The reward fell"), ("info", "Short steps"))
    assert one["text"].endswith("points (95 %: +22.5 to +37.0), but one thing is wrong: The reward fell.")
    assert one["parts"][2]["state"] == "watch"
    three = told(rewards(), NOTHING, ("error", "The grader fails"), ("warning", "A"), ("warning", "B"))
    assert three["text"].endswith(", and 3 things are wrong: The grader fails; A; and 1 more.")
    assert three["parts"][2]["state"] == "alarm"


def test_it_is_on_the_overview(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    page = overview(open_store(tmp_path / "run"), findings=[{"severity": "error", "title": "The grader fails"}])
    assert page["verdict"]["parts"][2]["text"] == "one thing is wrong: The grader fails"
    assert page["verdict"]["text"].startswith("No clear change yet: held-out accuracy 50.0 % -> 75.0 %")
