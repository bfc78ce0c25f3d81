"""The table of rollouts, and one rollout with its tokens."""

import json
from pathlib import Path

import pytest

from cluster.dashboard.index.filters import FilterError
from cluster.dashboard.records import GroupAddress
from cluster.dashboard.views.rollouts import rollout_page, rollout_table
from cluster.record.run_directory import RunDirectory
from tests.cluster.dashboard.small_runs import EQUAL, FAILED, MIXED, RIGHT, config, open_store, write_run, write_step

FIRST = GroupAddress(phase="train", step=0, group_id="000000-0000000000000000")
SECOND = GroupAddress(phase="train", step=0, group_id="000001-0000000000000001")


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run", config(learner__objective__surrogate__eps_high=0.28))


def test_a_page_of_the_table(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    page = rollout_table(open_store(tmp_path / "run"), filter_text="correct & step=1", sort="", offset=1, limit=2)
    assert page["total"] == 4
    assert [(row["group_id"][:6], row["sample_index"]) for row in page["rows"]] == [("000002", 2), ("000003", 0)]
    row = page["rows"][0]
    assert (row["reward"], row["correct"], row["advantage"], row["truth"]) == (1.0, True, 0.5, "3")
    assert row["components"] == {"math": 1.0}
    assert (page["filter"], page["offset"]) == ("correct & step=1", 1)
    assert page["elapsed_ms"] >= 0
    assert {"name", "type", "help"} <= page["fields"][0].keys()
    json.dumps(page, allow_nan=False)


def test_the_means_are_of_all_that_pass_and_not_of_a_page(run: RunDirectory) -> None:
    """Rewards 1, 0, 1, 0 of 4, 4, 4 and 8 tokens, and 1, none, 1, 1 of 4 tokens each."""
    write_step(run, 0, (MIXED, (RIGHT, FAILED, RIGHT, RIGHT)))
    page = rollout_table(open_store(run.path), filter_text="phase=train", sort="-length", offset=0, limit=1)
    assert page["total"] == 8
    assert page["means"] == pytest.approx({"reward": 5 / 7, "correct": 5 / 7, "length": 4.5})
    nothing = rollout_table(open_store(run.path), filter_text="len>100", sort="", offset=0, limit=1)
    assert nothing["means"] == {"reward": None, "correct": None, "length": None}


def test_a_filter_that_does_not_parse_is_an_error_for_the_person(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    with pytest.raises(FilterError):
        rollout_table(open_store(tmp_path / "run"), filter_text="reward<", sort="", offset=0, limit=1)


def test_one_rollout_in_full(run: RunDirectory) -> None:
    write_step(run, 0)
    run.write_vocabulary([f"t{i}" for i in range(12)])
    page = rollout_page(open_store(run.path), FIRST, 0)
    assert page is not None
    assert (page["text"], page["prompt_text"]) == ("The answer is 3", "<user>What is 1 + 2?")
    tokens = page["tokens"]
    assert tokens["ids"] == [10, 11, 12, 13]
    assert tokens["pieces"] == ["t10", "t11", "<12>", "<13>"]  # the model has more rows than the tokenizer pieces
    assert tokens["rollout_logprobs"] == [-0.5] * 4
    assert tokens["policy_logprobs"] == [-0.4] * 4
    assert tokens["ref_logprobs"] is None
    assert tokens["entropies"] is None
    assert tokens["versions"] == [0] * 4
    assert tokens["loss_mask"] == [True] * 4
    assert page["prompt_tokens"] == {"ids": [1, 2, 3], "pieces": ["t1", "t2", "t3"]}
    assert page["objective"]["clip"] == pytest.approx((0.8, 1.28))
    assert (page["objective"]["kl_coef"], page["objective"]["has_reference"]) == (0.04, True)
    assert (page["objective"]["differs"], page["updates_per_batch"]) == ((), 1)
    assert page["siblings"][1] == {"sample_index": 1, "reward": 0.0, "correct": False}
    assert len(page["siblings"]) == 4
    json.dumps(page, allow_nan=False)


def test_a_completion_that_was_not_computed_by_the_learner_has_no_log_probabilities_of_it(run: RunDirectory) -> None:
    write_step(run, 0, (EQUAL, MIXED))
    page = rollout_page(open_store(run.path), FIRST, 0)
    assert page is not None
    assert page["tokens"]["policy_logprobs"] is None
    assert page["tokens"]["pieces"] is None
    assert page["advantage"] == 0.0


def test_a_rollout_that_was_not_scored_says_why(run: RunDirectory) -> None:
    write_step(run, 0, ((FAILED, RIGHT, *EQUAL[:2]), MIXED))
    page = rollout_page(open_store(run.path), FIRST, 0)
    assert page is not None
    assert (page["reward"], page["correct"], page["outcome"], page["detail"], page["score_s"]) == (
        None,
        None,
        "timeout",
        "took too long",
        5.0,
    )


def test_rollouts_follow_one_another_across_groups_and_steps(run: RunDirectory) -> None:
    for step in range(2):
        write_step(run, step)
    store = open_store(run.path)
    order = []
    at: str | None = f"train/0/{FIRST.group_id}/0"
    while at is not None:
        order.append(at)
        _, at_step, group_id, sample = at.split("/")
        address = GroupAddress(phase="train", step=int(at_step), group_id=group_id)
        page = rollout_page(store, address, int(sample))
        assert page is not None
        assert page["previous"] == (order[-2] if len(order) > 1 else None)
        at = page["next"]
    assert len(order) == len(set(order)) == 16  # 2 steps of 2 groups of 4 samples
    assert order[4] == f"train/0/{SECOND.group_id}/0"
    assert order[8] == "train/1/000002-0000000000000000/0"


@pytest.mark.parametrize("sample_index", [4, -1, 10**9])
def test_there_is_no_such_rollout(run: RunDirectory, sample_index: int) -> None:
    write_step(run, 0)
    store = open_store(run.path)
    assert rollout_page(store, FIRST, sample_index) is None
    assert rollout_page(store, GroupAddress(phase="train", step=9, group_id=FIRST.group_id), 0) is None
    assert rollout_page(store, GroupAddress(phase="eval", step=0, group_id=FIRST.group_id), 0) is None
