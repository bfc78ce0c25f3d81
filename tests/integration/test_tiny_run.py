"""A whole run of the `tiny` recipe with real Ray, vLLM and DeepSpeed, and everything it leaves behind."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.integration import runs

pytestmark = pytest.mark.integration

STEPS, P, G = 7, 4, 8


def test_summary_and_files(reference: runs.Run) -> None:
    summary = runs.summary(reference.path)
    assert summary["status"] == "finished"
    assert summary["num_steps"] == summary["policy_version"] == STEPS
    assert summary["groups_dispatched"] == summary["groups_trained"] == STEPS * P
    assert summary["groups_rejected"] == {}
    assert summary["groups_in_flight"] == 0
    assert len(summary["weights_digest"]) == 64
    assert 0.0 < summary["accuracy_before"] < 1.0
    assert summary["accuracy_after"] is not None
    names = {path.name for path in reference.path.iterdir()}
    assert names >= {"config.yaml", "metrics.jsonl", "events.jsonl", "ledger.jsonl", "rollouts", "checkpoints"}
    assert [line["step"] for line in runs.read_lines(reference.path / "metrics.jsonl")] == list(range(STEPS))
    assert list((reference.path).rglob("*tfevents*")), "TensorBoard has its file"


def test_no_process_is_left(reference: runs.Run) -> None:
    assert reference.left_behind() == []


def test_every_group_was_leased_sampled_scored_and_consumed_once(reference: runs.Run) -> None:
    lives: dict[str, list[str]] = {}
    for line in runs.read_lines(reference.path / "ledger.jsonl"):
        if "state" in line:  # others tell of a checkpoint
            lives.setdefault(line["group_id"], []).append(line["state"])
    assert len(lives) == STEPS * P
    assert all(life == ["leased", "sampled", "scored", "consumed"] for life in lives.values())


def test_rollouts_hold_every_completion(reference: runs.Run) -> None:
    for step in range(STEPS):
        table = pq.read_table(reference.path / "rollouts" / f"step-{step:06d}.parquet").to_pylist()
        assert len(table) == P * G
        for row in table:
            assert len(row["token_ids"]) == len(row["rollout_logprobs"]) == len(row["loss_mask"])
            assert row["min_policy_version"] == row["max_policy_version"] == step, "synchronous: sampled on-policy"
            if row["policy_logprobs"]:
                gaps = [abs(a - b) for a, b in zip(row["policy_logprobs"], row["rollout_logprobs"], strict=True)]
                assert max(gaps) < 1e-4, "sampler and learner agree on the tokens that were sampled"


def test_every_sync_was_verified_to_rounding(reference: runs.Run) -> None:
    syncs = [e for e in runs.read_lines(reference.path / "events.jsonl") if e["kind"] == "sync"]
    assert [sync["extra"]["policy_version"] for sync in syncs] == list(range(STEPS + 1))
    assert max(sync["extra"]["canary_max_error"] for sync in syncs) < 1e-4
    assert max(sync["extra"]["canary_mean_error"] for sync in syncs) < 1e-5


def test_events_span_every_stage(reference: runs.Run) -> None:
    events = runs.read_lines(reference.path / "events.jsonl")
    assert {event["kind"] for event in events} >= {"generate", "score", "train", "sync", "eval", "save"}
    assert all(event["end_s"] >= event["start_s"] for event in events)


def test_export_loads_in_transformers_with_the_trained_weights(reference: runs.Run, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "exported"
    run = runs.start(out, str(reference.path), str(out), command="export")
    assert run.wait() == 0, run.output()
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    newest = sorted((reference.path / "checkpoints").iterdir())[-1]
    saved = load_file(newest / "model.safetensors")
    assert all(torch.equal(value, saved[name]) for name, value in model.named_parameters())
    assert AutoTokenizer.from_pretrained(out)("1 + 1").input_ids


def test_sampling_ahead_trains_within_its_lag(tmp_path: Path) -> None:
    words = ("deterministic=false", "max_policy_lag=1", "rollout.num_engines=2", "rollout.on_weight_sync=keep")
    # In bf16, and told what changed alone: at this learning rate that is little.
    deltas = ("rollout.dtype=bfloat16", "weight_sync.delta=true", "learner.lr=1e-6")
    run = runs.train(tmp_path / "ahead", "tiny", *runs.SHORT, *words, *deltas, "learner.streaming=true")
    summary = runs.summary(run.path)
    assert summary["groups_trained"] == summary["groups_dispatched"] == STEPS * P
    lines = runs.read_lines(run.path / "metrics.jsonl")
    assert sum(line["time/streamed_s"] for line in lines) > 0, "some groups were learned from while others were sampled"
    assert all(0 <= line["time/streamed_s"] <= line["time/train_s"] for line in lines)
    lags = [line["lag/max"] for line in lines]
    assert max(lags) == 1.0, "with one batch ahead, all but the first are one version old"
    syncs = [e["extra"] for e in runs.read_lines(run.path / "events.jsonl") if e["kind"] == "sync"]
    whole = syncs[0]["bytes"]
    assert {sync["bytes_sent"] for sync in syncs if sync["policy_version"] == 0} == {whole}
    assert 0 < max(sync["bytes_sent"] for sync in syncs if sync["policy_version"] > 0) < 0.1 * whole
    assert run.left_behind() == []


@pytest.mark.slow
def test_streamed_gradients_are_those_of_whole_batches(reference: runs.Run, tmp_path: Path) -> None:
    """The first step is on the same completions; from then on rounding makes others."""
    words = ("tiny", *runs.SHORT, "deterministic=false", "learner.streaming=true")
    streamed = runs.train(tmp_path / "streamed", *words).path
    first, expected = (runs.read_lines(path / "metrics.jsonl")[0] for path in (streamed, reference.path))
    for name in ("train/loss", "train/grad_norm", "train/kl_rollout", "train/entropy", "train/tokens", "reward/mean"):
        assert first[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-8), name
