"""Runs in a process of its own: vLLM's engine changes the process that it runs in. Prints one JSON line."""

import json
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from vllm.v1.engine import FINISH_REASON_STRINGS

from rollout.config import ModelConfig, RolloutConfig, SamplingConfig
from rollout.engines import vllm as vllm_engine
from rollout.engines.protocol import SampleSpec
from rollout.errors import EngineError
from rollout.transfer.manifest import TensorSpec

PROMPTS = [[10, 20, 30, 40, 50], [7, 8, 9, 10, 11, 12, 13]]


def sample(engine: Any, *, temperature: float = 1.0, num_samples: int = 8, **stops: Any) -> dict[str, Any]:
    sampling = SamplingConfig(max_tokens=12, temperature=temperature, **stops)
    engine.add(
        [
            SampleSpec(request_id=f"{p}-{i}", token_ids=tuple(prompt), sampling=sampling, seed=100 * p + i)
            for p, prompt in enumerate(PROMPTS)
            for i in range(num_samples)
        ]
    )
    outputs: dict[str, Any] = {}
    while engine.has_unfinished():
        outputs |= {output.request_id: output for output in engine.step()}
    return outputs


def errors_of(outputs: dict[str, Any], model: torch.nn.Module, temperature: float = 1.0) -> list[float]:
    """|log-probability of the engine - of transformers| for every sampled token."""
    errors = []
    for request_id, output in outputs.items():
        prompt = PROMPTS[int(request_id.split("-")[0])]
        ids = torch.tensor([[*prompt, *output.token_ids.tolist()]])
        with torch.no_grad():
            logprobs = (model(ids).logits[0, len(prompt) - 1 : -1] / temperature).log_softmax(-1)
        expected = logprobs.gather(1, torch.tensor(output.token_ids).long()[:, None])[:, 0]
        errors += (expected - torch.tensor(output.logprobs)).abs().tolist()
    return errors


def probe_errors(engine: Any, model: torch.nn.Module) -> float:
    found = engine.prompt_logprobs(PROMPTS)
    worst = 0.0
    for prompt, logprobs in zip(PROMPTS, found, strict=True):
        ids = torch.tensor([prompt])
        with torch.no_grad():
            expected = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        worst = max(worst, (expected - torch.tensor(logprobs)).abs().max().item())
    return worst


def send(engine: Any, model: torch.nn.Module, version: int, *, left_out: str = "") -> None:
    tensors = []
    for name, parameter in model.named_parameters():
        if name == left_out:
            continue
        spec = TensorSpec(name=name, dtype="float32", shape=tuple(parameter.shape))
        tensors.append((spec, np.frombuffer(parameter.detach().numpy().tobytes(), dtype=np.uint8)))
    engine.start_weight_update()
    engine.load_tensors(tensors)
    engine.finish_weight_update(version)


def error_without(engine: Any, model: torch.nn.Module, left_out: str, version: int) -> str:
    """What the engine says of a transfer that brings all weights but one."""
    try:
        send(engine, model, version, left_out=left_out)
    except EngineError as error:
        return str(error)
    return ""


def outcome_of_a_failed_request(engine: Any) -> dict[str, Any]:
    """One of two requests is failed in vLLM's scheduler, as it fails one whose keys and values it could not load."""
    sampling = SamplingConfig(max_tokens=12, temperature=1.0)
    engine.add([SampleSpec(request_id=name, token_ids=(10, 20), sampling=sampling, seed=0) for name in ("bad", "good")])
    engine.step()
    scheduler = engine._engine.engine_core.engine_core.scheduler
    scheduler.grammar_compile_error_reqs.add(next(name for name in scheduler.requests if name.startswith("bad")))
    outputs: dict[str, Any] = {}
    while engine.has_unfinished():
        outputs |= {output.request_id: output for output in engine.step()}
    return {name: [output.finish_reason, len(output.token_ids)] for name, output in outputs.items()}


def outcomes_of(reasons: Sequence[str]) -> list[str]:
    """What becomes of each of vLLM's finish reasons; the second of two tokens has no log-probability."""
    found: list[str] = []
    for reason in reasons:
        sampled = SimpleNamespace(
            token_ids=[5, 6], logprobs=SimpleNamespace(logprobs=[-1.0]), text="", finish_reason=reason
        )
        if reason in ("stop", "length", "repetition"):
            sampled.logprobs.logprobs.append(-2.0)
        sampled.weight_versions = None
        output = vllm_engine._engine_output(SimpleNamespace(request_id="0", outputs=[sampled]))
        assert len(output.token_ids) == len(output.logprobs) == len(sampled.logprobs.logprobs)
        found.append(output.finish_reason)
    return found


def texts(engine: Any, model_dir: str) -> dict[str, list[Any]]:
    """How completions end, and their texts, without a stop and with two kinds of them. In this tokenizer every token is
    a text of its own, so that a completion's text follows from its tokens."""
    pieces = {index: piece for piece, index in AutoTokenizer.from_pretrained(model_dir).get_vocab().items()}
    special, letter = next(i for i in pieces if pieces[i] == "<unk>"), next(i for i in pieces if pieces[i] == "e")
    found: dict[str, list[Any]] = {"special": ["<unk>", special], "letter": ["e", letter]}
    for name, stops in (
        ("none", {}),
        ("string", {"stop": ("<unk>",)}),
        ("token", {"stop_token_ids": (letter,)}),
    ):
        outputs = sample(engine, num_samples=32, **stops)
        found[name] = [
            (output.finish_reason, output.token_ids.tolist(), [pieces[int(i)] for i in output.token_ids], output.text)
            for _, output in sorted(outputs.items())
        ]
    return found


def executors(model_dir: str) -> dict[str, Any]:
    """GPUs of an engine -> (tensor parallel size, vLLM's way of running its workers)."""
    found: dict[str, Any] = {}
    for num_gpus in (0, 1, 4):
        rollout = RolloutConfig(gpus_per_engine=num_gpus)
        args = vllm_engine.engine_args(model_dir, ModelConfig(path=model_dir), rollout, seed=0)
        found[str(num_gpus)] = (args.tensor_parallel_size, args.distributed_executor_backend)
    return found


def main(model_dir: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    rollout = RolloutConfig(dtype="float32", kv_cache_mib=64, threads=1)
    engine = vllm_engine.VLLMEngine(model_dir, ModelConfig(path=model_dir, max_context_tokens=64), rollout, seed=0)
    first, again = sample(engine), sample(engine)
    report: dict[str, Any] = {
        "same_tokens_again": all(np.array_equal(first[i].token_ids, again[i].token_ids) for i in first),
        "distinct_samples": len({first[f"0-{i}"].token_ids.tobytes() for i in range(8)}),
        "sampled_error": max(errors_of(first, model)),
        "sampled_error_at_0.7": max(errors_of(sample(engine, temperature=0.7), model, 0.7)),
        "texts": texts(engine, model_dir),
        "executors": executors(model_dir),
        "failed_request": outcome_of_a_failed_request(engine),
        "finish_reasons": outcomes_of([*FINISH_REASON_STRINGS, "of a later version"]),
        "sync_errors": [],
    }
    for version in (1, 2):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.02)
        before = probe_errors(engine, model)
        send(engine, model, version)
        outputs = sample(engine)
        report["sync_errors"].append(
            {
                "stale": before,
                "probe": probe_errors(engine, model),
                "max": max(errors_of(outputs, model)),
                "mean": float(np.mean(errors_of(outputs, model))),
                "versions": sorted({v for o in outputs.values() for v, _, _ in o.versions}),
            }
        )
    # Without the repair of tied heads the engine computes with the old head: what the canary is there for.
    setattr(vllm_engine.FlatWeightEngine, "_repack", lambda self, heads: None)  # noqa: B010
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    send(engine, model, 3)
    report["unrepaired_head"] = probe_errors(engine, model)
    report["left_out"] = error_without(engine, model, "model.layers.1.self_attn.o_proj.weight", 4)
    print("REPORT " + json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1])
