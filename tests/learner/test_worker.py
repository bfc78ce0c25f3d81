"""The worker on real DeepSpeed: one rank without ZeRO is what two ranks with ZeRO 0 to 3 are compared with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learner.algorithm.plan import plan_step
from learner.backend.engine import RankPlace, RendezvousAddress
from learner.metrics import LEARNER_METRICS
from learner.types import TrainBatch, TrainingSetup
from rollout.errors import LearnerError
from tests.learner.ranks import run_ranks
from tests.learner.samples import groups_of, save_toy_model, settings_of, train_batch, train_step

pytestmark = pytest.mark.integration

STEPS = 5
CASES = [(0, True), (1, True), (2, False), (3, True), (3, False)]
"""(ZeRO stage, tied output matrix) for two ranks."""
SCORED = [[3, 4, 5, 6, 7], [8, 9], [10, 11, 12]]


def make_worker(
    rank: int,
    world_size: int,
    rendezvous: RendezvousAddress,
    model_dir: str,
    **fields: Any,
) -> Any:
    from learner.backend import deepspeed_config
    from learner.config import LearnerConfig
    from learner.worker import LearnerWorker

    # Every weight of the toy model is small: without this ZeRO-3 would keep all of them whole.
    deepspeed_config.STAGE3_PERSISTENCE_ELEMENTS = 0
    teacher_dirs = fields.pop("teacher_dirs", {})
    settings = {"lr": 1e-3, "num_ranks": world_size, "threads": 1, "micro_batch_tokens": 48, **fields}
    setup = TrainingSetup(
        model_dir=model_dir,
        seed=0,
        temperature=0.9,
        total_steps=STEPS,
        weight_dtype="float32",
        chunk_mib=1,
        deterministic=True,
        teacher_dirs=teacher_dirs,
    )
    place = RankPlace(rank=rank, world_size=world_size, local_rank=0, on_gpu=False, rendezvous=rendezvous)
    return LearnerWorker(LearnerConfig.model_validate(settings), setup, place)


def weights_of(worker: Any) -> tuple[dict[str, np.ndarray], str]:
    """Weights and digest as an engine receives them; empty on ranks other than 0."""
    from rollout.transfer.manifest import WeightReceiver

    manifest = worker.weight_manifest()
    receiver = WeightReceiver(manifest, receiver="test")
    weights: dict[str, np.ndarray] = {}
    for index in range(len(manifest.chunks)):
        chunk = worker.weight_chunk(index)
        if chunk is not None:
            for spec, data in receiver.accept(chunk):
                weights[spec.name] = data.copy().view(np.float32).reshape(spec.shape)
    digest = worker.weights_digest()
    return weights, receiver.finish(digest) if weights else ""


def check_rounding(worker: Any) -> None:
    """Collective, like the scores: the learner's precision is another one meanwhile, and its own again afterwards."""
    before = worker.score_tokens(SCORED)
    errors = worker.rounding_errors(SCORED)
    assert [len(errors_T) for errors_T in errors] == [len(token_ids) - 1 for token_ids in SCORED]
    largest = max(float(np.abs(errors_T).max()) for errors_T in errors)
    assert 1e-4 < largest < 0.1, "bf16 has 8 bits"
    again = worker.score_tokens(SCORED)
    assert all(np.array_equal(a, b) for a, b in zip(before, again, strict=True))


def train_case(
    rank: int, world_size: int, addresses: list[RendezvousAddress], cases: list[tuple[int, str, int]]
) -> list[Any]:
    """Five steps for each (ZeRO stage, model directory, tokens of a micro-batch); workers follow one another."""
    results = []
    for address, (stage, model_dir, tokens) in zip(addresses, cases, strict=True):
        worker = make_worker(rank, world_size, address, model_dir, zero_stage=stage, micro_batch_tokens=tokens)
        if stage == 3:
            held = sum(weight.numel() for weight in worker._model.named_weights().values())
            assert held == 0, "weights are spread over the ranks"
        steps = [train_step(worker, train_batch(step)) for step in range(STEPS)]
        assert worker.policy_version == STEPS
        weights, digest = weights_of(worker)
        export = Path(model_dir).parent / f"export-{world_size}-{stage}"
        worker.export(str(export))
        check_rounding(worker)
        outputs, values = [output for output, _ in steps], [computed for _, computed in steps]
        results.append((weights, digest, outputs, worker.score_tokens(SCORED), str(export), values))
        worker.close()
    return results


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("learner")
    models = {tied: save_toy_model(root / f"tied-{tied}" / "model", tied=tied) for tied in (True, False)}
    single = run_ranks(train_case, 1, 2, [(0, models[t], 4096) for t in (True, False)])
    double = run_ranks(train_case, 2, len(CASES), [(stage, models[t], 48) for stage, t in CASES])
    return {"single": dict(zip((True, False), single[0], strict=True)), "double": double}


@pytest.mark.parametrize("case", range(len(CASES)), ids=[f"zero{stage}-tied{tied}" for stage, tied in CASES])
def test_two_ranks_with_zero_train_like_one_without(trained: dict[str, Any], case: int) -> None:
    expected, _, expected_outputs, expected_scores, _, _ = trained["single"][CASES[case][1]]
    weights, _, outputs, scores, _, _ = trained["double"][0][case]
    assert set(weights) == set(expected)
    for name in expected:
        np.testing.assert_allclose(weights[name], expected[name], rtol=0, atol=1e-5, err_msg=name)
    for output, expected_output in zip(outputs, expected_outputs, strict=True):
        for metric in ("loss", "grad_norm", "kl_ref", "kl_rollout", "clip_fraction", "entropy", "tokens"):
            assert output.metrics[f"train/{metric}"] == pytest.approx(
                expected_output.metrics[f"train/{metric}"], rel=1e-4, abs=1e-6
            ), metric
    for values, expected_values in zip(scores, expected_scores, strict=True):
        np.testing.assert_allclose(values, expected_values, atol=1e-4)


def test_training_moved_the_weights(trained: dict[str, Any]) -> None:
    expected, _, outputs, _, _, _ = trained["single"][True]
    from safetensors.numpy import load_file

    start = load_file(Path(trained["single"][True][4]).parent / "model" / "model.safetensors")
    # AdamW moves each weight by about lr at each of 5 steps.
    assert 2e-3 < max(np.abs(expected[name] - start[name]).max() for name in expected) < 6e-3
    assert all(output.metrics["train/grad_norm"] > 0 for output in outputs)
    assert not any(output.skipped for output in outputs)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_both_ranks_report_the_same_metrics_and_every_completion_once(trained: dict[str, Any], case: int) -> None:
    first, second = (trained["double"][rank][case][2] for rank in (0, 1))
    for step in range(STEPS):
        ours, theirs = dict(first[step].metrics), dict(second[step].metrics)
        assert ours.keys() <= {metric.name for metric in LEARNER_METRICS}
        ours.pop("train/seconds"), theirs.pop("train/seconds")
        assert ours == theirs
        found = [key for rank in (0, 1) for key in trained["double"][rank][case][5][step].keys]
        wanted = plan_step(train_batch(step), settings_of()).sequences
        assert len(wanted) == 11
        assert sorted(found) == [sequence.key for sequence in wanted]


def test_values_of_tokens_are_of_the_weights_the_step_started_from(trained: dict[str, Any]) -> None:
    outputs, tokens = trained["single"][True][2], trained["single"][True][5]
    groups = groups_of(train_batch(0))
    values = tokens[0].by_completion()
    assert len(values) == 11
    trained_on: list[float] = []
    for (group_id, sample_index), of in values.items():
        completion = groups[group_id].completions[sample_index]
        assert len(of.policy_logprobs) == completion.num_tokens
        # At the first step the policy still is the reference.
        assert np.array_equal(of.policy_logprobs, of.ref_logprobs)
        assert len(of.entropies) == len(of.policy_logprobs)
        trained_on += of.entropies[completion.loss_mask].tolist()
    assert sum(trained_on) / len(trained_on) == pytest.approx(outputs[0].metrics["train/entropy"], rel=1e-6)
    assert outputs[0].metrics["train/kl_ref"] == 0.0
    assert outputs[1].metrics["train/kl_ref"] > 0.0


@pytest.mark.parametrize("case", range(len(CASES)))
def test_export_loads_in_transformers_with_the_same_weights(trained: dict[str, Any], case: int) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    weights, _, _, scores, export, _ = trained["double"][0][case]
    model = AutoModelForCausalLM.from_pretrained(export)
    named = dict(model.named_parameters())
    assert set(named) == set(weights)
    for name, parameter in named.items():
        assert parameter.dtype is torch.float32
        assert np.array_equal(parameter.detach().numpy(), weights[name]), name
    # What the canary compares: log-probabilities at temperature 1 of tokens 1 to n - 1.
    for ids, values in zip(SCORED, scores, strict=True):
        with torch.no_grad():
            logprobs_TV = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0, :-1], dim=-1)
        expected = logprobs_TV.gather(1, torch.tensor(ids[1:])[:, None]).squeeze(1)
        np.testing.assert_allclose(values, expected.numpy(), atol=1e-5)


def single_rank_cases(rank: int, world_size: int, addresses: list[RendezvousAddress], model_dir: str) -> dict[str, Any]:
    """What needs no second rank."""
    results: dict[str, Any] = {}
    worker = make_worker(rank, world_size, addresses[0], model_dir, updates_per_batch=2)
    output, _ = train_step(worker, train_batch(0))
    results["two updates"] = (output, weights_of(worker)[1])
    worker.close()
    worker = make_worker(rank, world_size, addresses[1], model_dir)
    train_step(worker, train_batch(0))
    train_step(worker, train_batch(0, policy_version=1))
    results["same batch twice"] = weights_of(worker)[1]
    worker.close()
    bf16 = {"dtype": "bfloat16", "gradient_checkpointing": True, "zero_stage": 2}
    worker = make_worker(rank, world_size, addresses[2], model_dir, **bf16)
    results["bfloat16"] = [train_step(worker, train_batch(step))[0] for step in range(2)]
    worker.close()
    worker = make_worker(rank, world_size, addresses[3], model_dir, objective={"kl": {"coef": 0.0}}, lr=1e-2)
    before = weights_of(worker)[1]
    groups = train_batch(0, num_groups=1).groups
    nothing = TrainBatch(step=0, policy_version=0, groups=())
    results["nothing"] = (train_step(worker, nothing)[0], before == weights_of(worker)[1])
    results["no reference"] = train_step(worker, TrainBatch(step=1, policy_version=0, groups=groups))
    worker.close()
    with pytest.raises(LearnerError) as caught:
        make_worker(0, 2, addresses[4], model_dir, start_deadline_s=2.0, step_deadline_s=2.0)
    results["lonely"] = str(caught.value)
    return results


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    model_dir = save_toy_model(tmp_path_factory.mktemp("single") / "model")
    results: dict[str, Any] = run_ranks(single_rank_cases, 1, 5, model_dir)[0]
    return results


def test_two_updates_on_a_batch_are_two_steps_on_it_and_one_version(single: dict[str, Any]) -> None:
    output, digest = single["two updates"]
    assert output.policy_version == 1
    assert digest == single["same batch twice"]


def test_bfloat16_is_close_to_fp32_and_finite(single: dict[str, Any], trained: dict[str, Any]) -> None:
    expected = trained["single"][True][2]
    for output, expected_output in zip(single["bfloat16"], expected, strict=False):
        assert not output.skipped
        for metric in ("train/entropy", "train/grad_norm"):
            assert output.metrics[metric] == pytest.approx(expected_output.metrics[metric], rel=0.1)
    assert single["bfloat16"][0].metrics["train/entropy"] != expected[0].metrics["train/entropy"]


def test_a_batch_without_tokens_to_train_on_is_skipped_and_is_no_bad_step(single: dict[str, Any]) -> None:
    output, is_unchanged = single["nothing"]
    assert (output.skipped, output.bad_steps_in_a_row, output.policy_version) == (True, 0, 0)
    assert "no completion" in output.reason
    assert is_unchanged


def test_without_kl_there_is_no_reference(single: dict[str, Any]) -> None:
    output, tokens = single["no reference"]
    assert "train/kl_ref" not in output.metrics
    assert output.policy_version == 1
    assert len(tokens.ref_logprobs_N) == 0
    assert all(len(values.ref_logprobs) == 0 for values in tokens.by_completion().values())


def test_a_rank_whose_peers_do_not_come_raises_at_its_deadline(single: dict[str, Any]) -> None:
    assert "rank 0 did not meet the other ranks (2 in all)" in single["lonely"]
    assert "within 2 s" in single["lonely"]
