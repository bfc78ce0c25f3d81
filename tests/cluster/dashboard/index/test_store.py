"""A run through its store: what is shown, and what follows when files change."""

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.dashboard.index.store import RunStore
from cluster.record.run_directory import RunDirectory
from cluster.types import RunSummary
from tests.cluster.dashboard.small_run import add_step, address, group, make_run
from tests.cluster.examples import opened, values_of


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return make_run(tmp_path / "runs" / "a")


@pytest.fixture
def store(run: RunDirectory) -> Iterator[RunStore]:
    store = RunStore(run.path)
    store.refresh()
    yield store
    store.close()


def test_rows_of_a_step_are_in_order_of_dispatch(store: RunStore) -> None:
    rows = store.step_rows("train", 1)
    assert [(row.group_id[:6], row.sample_index) for row in rows] == [
        (f"{index:06d}", i) for index in (2, 3) for i in range(3)
    ]
    first = rows[0]
    assert (first.reward, first.advantage, first.correct, first.finish, first.length) == (1.0, 0.5, True, "length", 2)
    # Sampler -0.5, -0.5; learner -0.5, -0.25 (the examples): one token differs by 0.25.
    assert first.max_gap == pytest.approx(0.25)
    assert first.k3 == pytest.approx((2.718281828**0.25 - 1.25) / 2, rel=1e-5)
    assert first.entropy == pytest.approx(0.5)
    assert (first.components, first.lag, first.answer, first.truth) == ({"math": 1.0}, 1, "3", "3")
    assert (first.question, first.preview) == ("1 + 2 (2)", "the answer is 3")
    last = rows[2]
    assert (last.reward, last.advantage, last.correct, last.outcome, last.max_gap) == (
        None,
        None,
        None,
        "timeout",
        None,
    )
    assert store.table_steps("train") == [0, 1, 2]
    assert store.step_rows("eval", 0)[0].lag is None
    assert store.step_rows("train", 99) == []


def test_completions_in_full(store: RunStore) -> None:
    records = store.group(address(3, 1))
    assert [record.row.sample_index for record in records] == [0, 1, 2]
    assert records[2].text == "\u202eno \x00 <script>"
    assert records[2].detail == "took too long"
    assert (list(records[0].policy_logprobs), list(records[2].policy_logprobs)) == ([-0.5, -0.25], [])
    assert records[0].version_spans == ((0, 0, 2),)
    one = store.rollout(address(3, 1), 1)
    assert one is not None
    assert (one.text, one.row.group_id[:6], one.token_ids) == ("The Answer is 3", "000003", [10, 11])
    assert store.rollout(address(3, 1), 7) is None
    assert store.rollout(address(3, 0), 0) is None
    assert store.group(address(77, 1)) == []


def test_neighbours_cross_steps(store: RunStore) -> None:
    assert store.neighbours(address(2, 1)) == (address(1, 0), address(3, 1))
    assert store.neighbours(address(0, 0))[0] is None
    assert store.neighbours(address(5, 2)) == (address(4, 2), None)
    assert store.find_groups([group(4).group_id, "no", group(0).group_id]) == [address(4, 2), address(0, 0)]


def test_spans_actors_ledger_and_prompts(store: RunStore) -> None:
    assert store.extent_s() == (0.0, 24.0)
    spans, cut = store.spans.between(10.0, 12.0, limit=10)
    assert ([span.kind for span in spans], cut) == (["generate", "generate"], False)
    assert spans[0].ids == (group(2).group_id,)
    assert store.spans.between(0.0, 30.0, limit=2)[1] is True
    assert [span.id for span in store.all_spans()] == list(range(9))
    sampler = next(stats for stats in store.actor_stats() if stats.actor == "sampler-0")
    assert (sampler.tokens, sampler.counts, sampler.num_groups, sampler.policy_version) == (36, {"generate": 6}, 6, 2)
    # Both groups of a step were generated in the same two seconds.
    assert (sampler.steps, sampler.step_tokens, sampler.step_busy_s) == ([0, 1, 2], [12, 12, 12], [2.0, 2.0, 2.0])
    assert store.ledger_counts()["consumed"] == 6
    assert store.ledger_letters() == "cccccc"
    entries, total = store.ledger_entries(1, 2)
    assert ([entry.group_id[:6] for entry in entries], total) == (["000001", "000002"], 6)
    assert (entries[1].worker, entries[1].step, entries[1].times_consumed) == ("sampler-0", 1, 1)
    assert [line["state"] for line in store.ledger_history(group(2).group_id)] == [
        "leased",
        "sampled",
        "scored",
        "consumed",
    ]
    assert set(store.ledger_anomalies().values()) == {0}
    prompts, total = store.prompt_stats("hardest", 5)
    assert (total, prompts[0].num_groups, prompts[0].pass_rate, prompts[0].mean_reward) == (1, 6, 0.5, 0.5)
    assert prompts[0].last == address(5, 2)
    assert [visit.address.step for visit in store.prompt_history(prompts[0].uid)] == [0, 0, 0, 1, 1, 2, 2]


def test_what_breaks_exactly_once_is_counted(run: RunDirectory, store: RunStore) -> None:
    again = {"time_s": 99.0, "group_id": group(0).group_id, "state": "consumed", "attempt": 1, "step": 1}
    run.append_ledger(again)
    run.append_ledger(again | {"group_id": "000777-unknown", "step": 2})
    trained = (group(5).group_id, 0)
    run.write_rollouts(3, [opened(group(5))], {trained: 0.5}, {trained: values_of((-0.5, -0.25), (-1.0, -2.0))})
    assert store.refresh() == {"ledger", "rollouts"}
    assert store.ledger_anomalies() == {
        "consumed_twice": 1,
        "consumed_without_rollouts": 2,
        "trained_without_consumption": 2,
        "trained_twice": 1,
        "mixed_attempts": 0,
    }


@pytest.mark.parametrize(
    ("filter_text", "total"),
    [
        ("", 21),
        ("correct", 7),
        ("!correct", 14),
        ("correct & truncated", 7),
        ("disagreed", 14),
        ("outcome=timeout", 7),
        ("adv=none & phase=train", 6),
        ("reward.math<1", 7),
        ('"THE ANSWER"', 14),
        ("text~<script>", 7),
        ("step:1-2", 12),
        ("group~000003", 3),
        ("truth=3 & sample=2", 7),
        ('question~"(2)"', 3),
        ("answer=none", 7),
        ("pass_rate>0.4", 21),
        ("trained", 12),
        ("max_gap=none", 9),
        ("uid=nobody", 0),
    ],
)
def test_filters(store: RunStore, filter_text: str, total: int) -> None:
    assert store.query(filter_text, "", 0, 100).total == total
    negated = store.query(f"!({filter_text})", "", 0, 100).total if filter_text else 0
    assert total + negated == 21


def test_sorted_pages(store: RunStore) -> None:
    rows = store.query("", "-adv", 0, 100).rows
    values = [row.advantage for row in rows]
    assert values == [0.5] * 6 + [-0.5] * 6 + [None] * 9
    assert [row.step for row in rows[:6]] == [0, 0, 1, 1, 2, 2]  # equal ones in order of dispatch
    page = store.query("", "-adv", 5, 2)
    assert (page.total, list(page.rows)) == (21, rows[5:7])
    assert [row.finish for row in store.query("step=0 & phase=train", "finish", 0, 3).rows] == [
        "length",
        "length",
        "stop",
    ]


def test_a_live_run_is_followed(run: RunDirectory, store: RunStore) -> None:
    assert store.refresh() == frozenset()
    add_step(run, 3)
    assert store.refresh() == {"metrics", "events", "ledger", "rollouts"}
    assert store.table_steps("train") == [0, 1, 2, 3]
    assert store.query('"the answer"', "", 0, 1).total == 18
    assert store.metrics().steps == [0, 1, 2, 3]
    assert store.status() == "live"
    summary = {"weights_digest": "", "accuracy_before": None, "accuracy_after": None, "wall_s": 1.0}
    counts = {"groups_dispatched": 8, "groups_trained": 8, "policy_version": 4, "num_steps": 4}
    run.write_summary(RunSummary(status="interrupted", **summary, **counts))  # type: ignore[arg-type]
    assert store.refresh() == {"summary"}
    assert store.status() == "interrupted"


def test_a_resumed_run_is_rewound(run: RunDirectory, store: RunStore) -> None:
    run.rewind(1)
    assert store.refresh() >= {"metrics", "rollouts", "ledger", "events"}
    assert store.metrics().steps == [0]
    assert store.table_steps("train") == [0]
    assert store.step_rows("train", 1) == []
    assert store.ledger_counts()["consumed"] == 2
    assert [span.step for span in store.all_spans() if span.kind == "train"] == [0]
    add_step(run, 1)
    store.refresh()
    assert store.num_rollouts() == 3 + 2 * 6
    assert store.query("step=1", "", 0, 9).total == 6


def test_the_lock_says_whether_the_run_is_live(run: RunDirectory, store: RunStore) -> None:
    with (run.path / "run.lock").open("w") as lock:
        assert store.status() == "stopped"
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert store.status() == "live"
    assert store.status() == "stopped"


def test_vocabulary_and_checkpoints(run: RunDirectory, store: RunStore) -> None:
    (run.path / "vocabulary.json").write_text(json.dumps({"pieces": ["a", "<0xE2>"]}))
    folder = run.checkpoints_path / "step-00000002"
    folder.mkdir()
    (run.checkpoints_path / "step-00000003").mkdir()  # being written
    (folder / "manifest.json").write_text(json.dumps({"files": {"a": {"bytes": 3}, "b": {"bytes": 4}}}))
    assert store.refresh() == {"vocabulary", "checkpoints"}
    assert store.vocabulary() == ["a", "<0xE2>"]
    assert [(c.step, c.name, c.num_bytes) for c in store.checkpoints()] == [(2, "step-00000002", 7)]
