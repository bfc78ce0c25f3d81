"""The real engine against transformers: what it samples from, and what it computes with after new weights."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runs import REPOSITORY

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("layout", ["tied", "tied, with the head in the file", "untied"])
def test_engine_follows_its_weights(layout: str, tmp_path: Path) -> None:
    tied = layout != "untied"
    model_dir = make_model(tmp_path / "model", tied=tied)
    if layout == "tied, with the head in the file":
        add_the_head(model_dir)
    report = run_checks(model_dir)
    assert report["same_tokens_again"], "a seed for each sample fixes what is sampled"
    assert report["distinct_samples"] > 4
    assert report["sampled_error"] < 1e-4
    assert report["sampled_error_at_0.7"] < 1e-4, "log-probabilities are those of the distribution sampled from"
    assert report["executors"] == {"0": [1, None], "1": [1, None], "4": [4, "mp"]}, "never Ray's, within an actor"
    assert report["finish_reasons"] == ["stop", "length", "abort", "error", "length", "error"]
    (reason, num_tokens), good = report["failed_request"]["bad"], report["failed_request"]["good"]
    assert (reason, num_tokens < 12) == ("error", True), "one request fails, and the engine goes on"
    assert good[0] in ("stop", "length")
    check_texts(report["texts"])
    for version, sync in enumerate(report["sync_errors"], start=1):
        assert sync["stale"] > 0.01, "the new weights are different enough to see"
        assert sync["probe"] < 1e-4
        assert sync["max"] < 1e-4
        assert sync["mean"] < 1e-5
        assert sync["versions"] == [version]
    assert (report["unrepaired_head"] > 0.01) == tied
    assert "kept 1 of its weights" in report["left_out"]
    assert "model.layers.1.self_attn.o_proj.weight" in report["left_out"]


def add_the_head(model_dir: Path) -> None:
    """As some tools save a tied model: vLLM then loads it as untied, and ties it again."""
    from safetensors.torch import load_file, save_file

    weights = load_file(model_dir / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, model_dir / "model.safetensors", {"format": "pt"})


def check_texts(texts: dict[str, list[Any]]) -> None:
    """A completion's text is all its tokens, special ones too, but for the one that ended it."""
    special, letter = texts["special"][1], texts["letter"][1]
    for reason, _, pieces, text in texts["none"]:
        assert text == "".join(pieces[:-1] if reason == "stop" else pieces)
    assert any("<unk>" in text for *_, text in texts["none"]), "a special token that ends nothing is read"
    for name, stop in (("string", special), ("token", letter)):
        ended = [token_ids for reason, token_ids, *_ in texts[name] if reason == "stop"]
        assert sum(token_ids[-1] == stop for token_ids in ended) > 2, f"some completions end with the stop {name}"
        assert all(stop not in token_ids[:-1] for _, token_ids, *_ in texts[name]), "and none goes on behind it"
        for reason, _, pieces, text in texts[name]:
            assert text == "".join(pieces[:-1] if reason == "stop" else pieces)


def make_model(directory: Path, *, tied: bool) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from learner.model.tiny import _make_tokenizer

    tokenizer = _make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        initializer_range=0.1,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).float().save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def run_checks(model_dir: Path) -> dict[str, Any]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.vllm_checks", str(model_dir)],
        env=env,
        cwd=REPOSITORY,
        text=True,
        capture_output=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("REPORT "))
    report: dict[str, Any] = json.loads(line.removeprefix("REPORT "))
    return report
