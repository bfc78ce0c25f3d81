import copy
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from learner.algorithm.batching import ModelInputs
from learner.algorithm.loss import Loss
from learner.algorithm.plan import plan_step
from learner.algorithm.tokens import TokenValues
from learner.model.loading import load_causal_lm
from learner.model.policy import LogprobModel, build_policy
from learner.objective import ObjectiveConfig
from learner.types import TrainBatch
from rollout.errors import ModelError
from rollout.types import RolloutGroup
from tests.learner.samples import VOCABULARY, collated, save_toy_model, scored_group, settings_of

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def policy(request: pytest.FixtureRequest, tmp_path: Path) -> LogprobModel:
    return build_policy(
        save_toy_model(tmp_path / "model", tied=request.param), dtype="float32", gradient_checkpointing=False
    )


def inputs_of(ids: list[int], num_predicted: int) -> ModelInputs:
    """One sequence, of which the first tokens predict."""
    return ModelInputs(input_ids_BT=torch.tensor([ids]), positions_N=torch.arange(num_predicted))


def plain_logprobs(model: nn.Module, ids: list[int], temperature: float = 1.0) -> torch.Tensor:
    """Log-probabilities of tokens 1 to n - 1 by the model's own logits."""
    with torch.no_grad():
        logits_TV = model(input_ids=torch.tensor([ids])).logits[0, :-1]
    return torch.log_softmax(logits_TV / temperature, dim=-1).gather(1, torch.tensor(ids[1:])[:, None]).squeeze(1)


def whole_ids(group: RolloutGroup, sample_index: int) -> list[int]:
    return [*group.prompt.token_ids, *group.completions[sample_index].token_ids.tolist()]


def test_logprobs_equal_those_of_the_unpadded_model(policy: LogprobModel) -> None:
    rng = random.Random(3)
    group = scored_group(0, [1.0, 0.0, 0.5], rng=rng, lengths=[9, 2, 5])
    batch = TrainBatch(step=0, policy_version=0, groups=(group,))
    plan = plan_step(batch, settings_of())
    micro_batch = collated(batch, plan.sequences)
    logprobs_N, _ = policy(micro_batch.inputs, micro_batch.targets_N, 0.8)
    expected = [
        plain_logprobs(policy.policy, whole_ids(group.group.payload, s.sample_index), temperature=0.8)[
            s.num_prompt_tokens - 1 :
        ]
        for s in plan.sequences
    ]
    torch.testing.assert_close(logprobs_N, torch.cat(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["Cohere", "Granite", "Gemma2", "GPTNeoX"])
def test_families_that_scale_or_cap_logits(family: str) -> None:
    import transformers

    fields: dict[str, dict[str, float]] = {
        "Cohere": {"logit_scale": 0.25},
        "Granite": {"logits_scaling": 4.0},
        "Gemma2": {"head_dim": 16},
    }
    config = getattr(transformers, f"{family}Config")(**SMALL, **fields.get(family, {}))
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(config).float().eval()
    wrapped = LogprobModel(model, dtype=torch.float32)
    # Only GPT-NeoX's logits are exactly output matrix times hidden state.
    assert (wrapped.head is not None) == (family == "GPTNeoX")
    ids = [3, 9, 4, 17, 2]
    logprobs_N, _ = wrapped(inputs_of(ids, 4), torch.tensor(ids[1:]), 1.0)
    torch.testing.assert_close(logprobs_N, plain_logprobs(model, ids), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kl_coef", [0.0, 0.04])
def test_the_gradient_does_not_depend_on_the_split(policy: LogprobModel, kl_coef: float) -> None:
    rng = random.Random(7)
    groups = tuple(scored_group(i, [1.0, 0.0, 0.5, 0.2], rng=rng, masked_first=i == 2) for i in range(4))
    batch = TrainBatch(step=0, policy_version=0, groups=groups)
    plan = plan_step(batch, settings_of())
    assert len(plan.sequences) == 16
    reference = copy.deepcopy(policy).eval()
    with torch.no_grad():
        for weight in policy.parameters():
            weight.mul_(1.05)
    gradients = {}
    for size in (1, 2, 4, 16):
        policy.zero_grad()
        for start in range(0, 16, size):
            micro_batch = collated(batch, plan.sequences[start : start + size])
            inputs = (micro_batch.inputs, micro_batch.targets_N, 1.0)
            logprobs_N, entropy_N = policy(*inputs)
            tokens = TokenValues(
                policy_N=logprobs_N,
                sampler_N=micro_batch.rollout_logprobs_N,
                ref_N=reference(*inputs)[0],
                advantages_N=micro_batch.advantages_N,
                token_weights_N=micro_batch.token_weights_N,
                mask_N=micro_batch.mask_N,
                entropy_N=entropy_N,
                index_N=micro_batch.index_N,
                num_completions=size,
            )
            loss, _ = Loss(ObjectiveConfig.model_validate({"kl": {"coef": kl_coef}}))(tokens)
            loss.backward()
        gradients[size] = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
    norm = gradients[16].norm()
    assert norm > 0.1
    for size in (1, 2, 4):
        assert (gradients[size] - gradients[16]).abs().max() / norm < 1e-6


def test_gradient_checkpointing_gives_the_same_gradient(tmp_path: Path) -> None:
    path = save_toy_model(tmp_path / "model")
    gradients = []
    for gradient_checkpointing in (False, True):
        model = build_policy(path, dtype="float32", gradient_checkpointing=gradient_checkpointing)
        assert model.policy.is_gradient_checkpointing == gradient_checkpointing
        logprobs_N, _ = model(inputs_of([3, 4, 5], 2), torch.tensor([4, 5]), 1.0)
        logprobs_N.sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_dropout_is_off_and_weights_are_fp32(tmp_path: Path) -> None:
    # The toy model's configuration asks for attention dropout of 0.1.
    model = build_policy(save_toy_model(tmp_path / "model"), dtype="bfloat16", gradient_checkpointing=False)
    inputs = (inputs_of([3, 4, 5], 2), torch.tensor([4, 5]), 1.0)
    assert model.training
    torch.testing.assert_close(model(*inputs), model(*inputs), rtol=0, atol=0)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_weight_names_are_those_of_the_checkpoint(policy: LogprobModel) -> None:
    from safetensors import safe_open

    with safe_open(policy.policy.config._name_or_path + "/model.safetensors", "pt") as file:
        assert set(policy.named_weights()) == set(file.keys())


def test_weights_that_are_trained_in_another_layout_are_refused(tmp_path: Path) -> None:
    # transformers joins the experts' matrices when it loads them, so their names are not those of the files.
    from transformers import MixtralConfig, MixtralForCausalLM

    MixtralForCausalLM(MixtralConfig(**SMALL, num_local_experts=2)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="mixture of experts"):
        load_causal_lm(str(tmp_path))


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_causal_lm(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "unheard_of"}')
    with pytest.raises(ModelError, match="cannot load"):
        load_causal_lm(str(tmp_path))
