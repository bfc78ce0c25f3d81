from pathlib import Path
from typing import Any

import pytest
import torch

from learner.model.attention import fp32_attention, register_cpu_attention
from tests.learner.samples import VOCABULARY, save_toy_model

LENGTHS = (9, 4, 1)


def padded_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and mask [3, 9], padded on the right."""
    tokens_BT = torch.randint(2, VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(1))
    mask_BT = torch.arange(9)[None, :] < torch.tensor(LENGTHS)[:, None]
    return tokens_BT, mask_BT


def load(directory: str, attention: str) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, attn_implementation=attention, dtype=torch.float32)
    return model.eval()


def test_logits_and_gradients_are_those_of_eager_attention_with_padding(tmp_path: Path) -> None:
    directory = save_toy_model(tmp_path / "toy")
    tokens_BT, mask_BT = padded_batch()
    results = []
    for attention in ("eager", register_cpu_attention()):
        model = load(directory, attention)
        logits_BTV = model(input_ids=tokens_BT, attention_mask=mask_BT.long()).logits
        logits_BTV.log_softmax(-1)[mask_BT][:, 5].mean().backward()
        results.append((logits_BTV[mask_BT].detach(), model.model.layers[0].self_attn.q_proj.weight.grad))
    (eager, eager_grad), (ours, our_grad) = results
    assert eager.abs().max() > 0.1
    assert eager_grad.abs().max() > 1e-3
    assert torch.allclose(ours, eager, atol=1e-5, rtol=0)
    assert torch.allclose(our_grad, eager_grad, atol=1e-5, rtol=0)


def test_what_stands_in_the_padding_changes_nothing(tmp_path: Path) -> None:
    model = load(save_toy_model(tmp_path / "toy"), register_cpu_attention())
    tokens_BT, mask_BT = padded_batch()
    other_BT = torch.where(mask_BT, tokens_BT, (tokens_BT + 7) % VOCABULARY)
    with torch.no_grad():
        first, second = (model(input_ids=t, attention_mask=mask_BT.long()).logits for t in (tokens_BT, other_BT))
    assert not torch.equal(tokens_BT, other_BT)
    assert torch.equal(first[mask_BT], second[mask_BT])


@pytest.mark.parametrize("autocast", [False, True])
def test_bf16_in_is_bf16_out_with_the_product_in_fp32(autocast: bool) -> None:
    module: Any = torch.nn.Module()
    module.is_causal = True
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 2, 6, 8, generator=generator).bfloat16() for _ in range(3))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        output, weights = fp32_attention(module, query, key, value, None)
    assert weights is None
    assert output.dtype == torch.bfloat16
    scores = query.float() @ key.float().transpose(-1, -2) / 8**0.5
    scores = scores.masked_fill(~torch.ones(6, 6).tril().bool(), float("-inf"))
    expected = (scores.softmax(-1) @ value.float()).transpose(1, 2)
    assert torch.equal(output, expected.bfloat16()) or (output.float() - expected).abs().max() < 0.01
