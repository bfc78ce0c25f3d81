"""A step: its groups, its histograms, and the way from dispatched to trained."""

import json
from pathlib import Path

import pytest

from cluster.dashboard.views.steps import step_list, step_page
from cluster.record.run_directory import RunDirectory
from reward.types import RewardOutcome
from tests.cluster.dashboard.demo_runs import write_demo_run
from tests.cluster.dashboard.small_runs import (
    CUT,
    EQUAL,
    FAILED,
    MIXED,
    RIGHT,
    WRONG,
    Sample,
    config,
    open_store,
    write_run,
    write_step,
)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run", config())


def test_steps_of_both_phases(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    store = open_store(tmp_path / "run")
    assert step_list(store, "train") == {"steps": [0, 1, 2]}
    assert step_list(store, "eval") == {"steps": [0, 3]}
    assert step_page(store, "train", 3) is None
    assert step_page(store, "eval", 1) is None


def test_the_groups_of_a_step_in_order_of_dispatch(run: RunDirectory) -> None:
    write_step(run, 0, (MIXED, EQUAL))
    page = step_page(open_store(run.path), "train", 0)
    assert page is not None
    assert [group["group_id"][:6] for group in page["groups"]] == ["000000", "000001"]
    mixed, equal = page["groups"]
    assert (mixed["question"], mixed["truth"], mixed["status"], mixed["reason"]) == (
        "What is 1 + 2?",
        "3",
        "trained",
        "",
    )
    assert (mixed["reward_mean"], mixed["reward_std"], mixed["num_correct"]) == (0.5, 0.5, 2)
    assert (equal["reward_mean"], equal["reward_std"], equal["num_correct"]) == (0.0, 0.0, 0)
    assert mixed["cells"][3] == {
        "sample_index": 3,
        "reward": 0.0,
        "advantage": -0.5,
        "correct": False,
        "outcome": "ok",
        "length": 8,
        "finish": "length",
        "answer": "would",
        "preview": "The answer would",
    }
    json.dumps(page, allow_nan=False)


def test_steps_beside_a_step_skip_those_without_rollouts(run: RunDirectory) -> None:
    for step in (0, 1, 4):
        write_step(run, step)
    store = open_store(run.path)
    page = step_page(store, "train", 1)
    assert page is not None
    assert (page["previous"], page["next"]) == (0, 4)
    first, last = step_page(store, "train", 0), step_page(store, "train", 4)
    assert first is not None
    assert last is not None
    assert (first["previous"], last["next"]) == (None, None)


def test_histograms_count_every_completion_once(run: RunDirectory) -> None:
    write_step(run, 0, (MIXED, (RIGHT, WRONG, CUT, FAILED)))
    page = step_page(open_store(run.path), "train", 0)
    assert page is not None
    rewards, lengths, advantages = (page["histograms"][name] for name in ("reward", "length", "advantage"))
    assert (rewards["edges"][0], rewards["edges"][-1]) == (0.0, 1.0)
    # 1, 0, 1, 0 and 1, 0, 0: the last has no reward.
    assert (rewards["counts"][0], rewards["counts"][-1], sum(rewards["counts"])) == (4, 3, 7)
    # Lengths 4 and 8 of two cut completions; a bin for each whole number.
    assert lengths["edges"] == [4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
    assert lengths["counts"] == [6, 0, 0, 0, 2]
    assert lengths["truncated"] == [0, 0, 0, 0, 2]
    assert sum(advantages["counts"]) == 7


def test_an_advantage_of_zero_has_the_middle_bin(run: RunDirectory) -> None:
    write_step(run, 0, (MIXED, EQUAL))
    page = step_page(open_store(run.path), "train", 0)
    assert page is not None
    advantages = page["histograms"]["advantage"]
    middle = len(advantages["counts"]) // 2
    assert advantages["counts"][middle] == 4
    assert advantages["counts"][0] == advantages["counts"][-1] == 2
    assert advantages["edges"][0] == -advantages["edges"][-1] == -0.5


def test_many_lengths_fit_into_few_bins_of_whole_width(run: RunDirectory) -> None:
    long = tuple(Sample(text="x", num_tokens=n) for n in (1, 50, 99, 100))
    write_step(run, 0, (long, EQUAL))
    page = step_page(open_store(run.path), "train", 0)
    assert page is not None
    edges = page["histograms"]["length"]["edges"]
    assert edges[1] - edges[0] == 5.0  # 100 lengths in at most 24 bins
    assert edges[-1] > 100
    assert sum(page["histograms"]["length"]["counts"]) == 8


def test_rewards_keep_their_colours_over_the_run(run: RunDirectory) -> None:
    write_step(run, 0, ((Sample(text="a", reward=-1.0), Sample(text="b", reward=3.0)),))
    write_step(run, 1, (EQUAL, EQUAL))
    page = step_page(open_store(run.path), "train", 1)
    assert page is not None
    assert page["reward_range"] == [-1.0, 3.0]


def test_rewards_that_are_all_zero_still_have_a_range(run: RunDirectory) -> None:
    write_step(run, 0, (EQUAL, EQUAL))
    page = step_page(open_store(run.path), "train", 0)
    assert page is not None
    assert page["reward_range"] == [0.0, 1.0]


def test_the_funnel_tells_what_was_lost_and_why(run: RunDirectory) -> None:
    write_step(run, 0, (MIXED, MIXED), num_rejected=1)
    write_step(run, 1, (MIXED, (*EQUAL[:3], FAILED)), num_rejected=3)
    page = step_page(open_store(run.path), "train", 1)
    assert page is not None
    # Two more were rejected than after step 0.
    assert page["funnel"] == [
        {"label": "dispatched", "count": 4, "reasons": {}},
        {"label": "scored", "count": 4, "reasons": {}},
        {"label": "trained", "count": 2, "reasons": {"equal_rewards": 2}},
        {
            "label": "effective completions",
            "count": 4,
            "reasons": {"equal rewards in its group": 3, "not scored: timeout": 1},
        },
    ]


def test_groups_with_too_few_scores_are_lost_before_they_are_scored(run: RunDirectory) -> None:
    write_step(run, 0)
    lines = (run.path / "metrics.jsonl").read_text().replace("groups/rejected_equal_rewards", "groups/rejected_x")
    (run.path / "metrics.jsonl").write_text(lines.replace('"step":0', '"step":0,"groups/rejected_too_few_scored":2'))
    page = step_page(open_store(run.path), "train", 0)
    assert page is not None
    assert [stage["count"] for stage in page["funnel"]] == [4, 2, 2, 8]
    assert page["funnel"][1]["reasons"] == {"too_few_scored": 2}


def test_a_skipped_step_trained_nothing(run: RunDirectory) -> None:
    write_step(run, 0, skipped=True)
    page = step_page(open_store(run.path), "train", 0)
    assert page is not None
    assert [stage["count"] for stage in page["funnel"]] == [2, 2, 0, 0]
    assert page["funnel"][2]["reasons"] == {"step skipped: loss or gradient not finite": 2}


def test_a_group_without_advantages_was_rejected_for_the_reason_in_the_ledger(run: RunDirectory) -> None:
    groups = write_step(run, 0, ((FAILED, FAILED, FAILED, FAILED), MIXED))
    run.append_ledger({"time_s": 1.0, "group_id": groups[0].group_id, "state": "rejected", "reason": "too_few_scored"})
    page = step_page(open_store(run.path), "train", 0)
    assert page is not None
    assert (page["groups"][0]["status"], page["groups"][0]["reason"]) == ("rejected", "too_few_scored")
    assert (page["groups"][0]["reward_mean"], page["groups"][0]["reward_std"]) == (None, None)
    assert page["groups"][0]["cells"][0]["outcome"] == RewardOutcome.TIMEOUT
    assert page["groups"][1]["status"] == "trained"


def test_the_metrics_of_a_step_have_derived_ones(run: RunDirectory) -> None:
    write_step(run, 0)
    page = step_page(open_store(run.path), "train", 0)
    assert page is not None
    assert page["metrics"]["reward/mean"] == 0.5
    assert "step" not in page["metrics"]


def test_a_step_whose_metrics_are_not_written_yet_is_shown(run: RunDirectory) -> None:
    write_step(run, 0)
    (run.path / "metrics.jsonl").unlink()
    page = step_page(open_store(run.path), "train", 0)
    assert page is not None
    assert page["metrics"] == {}
    assert [stage["count"] for stage in page["funnel"]] == [2, 2, 2, 8]


def test_an_evaluation_has_groups_and_no_training(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    page = step_page(open_store(tmp_path / "run"), "eval", 3)
    assert page is not None
    assert page["groups"][0]["status"] == "evaluated"
    assert page["groups"][0]["num_correct"] == 3
    assert [(stage["label"], stage["count"]) for stage in page["funnel"]] == [
        ("dispatched", 1),
        ("scored", 1),
    ]
    assert page["metrics"]["eval/pass_at_1"] == 0.75
    assert sum(page["histograms"]["advantage"]["counts"]) == 0


def test_a_rejected_group_with_rollouts_is_counted_once(run: RunDirectory) -> None:
    groups = write_step(run, 0, ((FAILED, FAILED, FAILED, FAILED), MIXED), num_rejected=1)
    run.append_ledger({"time_s": 1.0, "group_id": groups[0].group_id, "state": "rejected", "reason": "equal_rewards"})
    page = step_page(open_store(run.path), "train", 0)
    assert page is not None
    assert [(stage["label"], stage["count"]) for stage in page["funnel"]] == [
        ("dispatched", 2),
        ("scored", 2),
        ("trained", 1),
        ("effective completions", 4),
    ]
    assert page["funnel"][2]["reasons"] == {"equal_rewards": 1}
    assert page["funnel"][3]["reasons"] == {}  # its completions were lost before, with their group


def test_the_funnel_begins_with_what_a_synchronous_run_dispatched(tmp_path: Path) -> None:
    write_demo_run(tmp_path / "run", kind="broken_grader", steps=16)
    store = open_store(tmp_path / "run")
    counted = store.metrics().columns["groups/dispatched"]
    before = 0.0
    for step, total in enumerate(counted[:4]):
        page = step_page(store, "train", step)
        assert page is not None
        assert total is not None
        assert page["funnel"][0]["count"] == total - before
        before = total
