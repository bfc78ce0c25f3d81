from pathlib import Path
from typing import Any

import pytest
import torch

from learner.model.attention import CAPPED_ATTENTION, CPU_ATTENTION, attention_for, capped_attention, fp32_attention
from tests.learner.samples import VOCABULARY, save_toy_model

LENGTHS = (9, 4, 1)
CAP = 1.5


@pytest.fixture(autouse=True)
def known_to_transformers() -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

    assert attention_for(LlamaForCausalLM, LlamaConfig(), slow_kernel=True) == CPU_ATTENTION
    assert attention_for(Gemma2ForCausalLM, Gemma2Config(), slow_kernel=False) == CAPPED_ATTENTION


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
    for attention in ("eager", CPU_ATTENTION):
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
    model = load(save_toy_model(tmp_path / "toy"), CPU_ATTENTION)
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


@pytest.mark.parametrize("window", [3, 100], ids=["window of 3", "no window"])
def test_a_cap_of_the_scores_is_applied_where_fused_kernels_leave_it_out(window: int) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    sizes: dict[str, Any] = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    config = Gemma2Config(
        **sizes,
        intermediate_size=32,
        num_hidden_layers=2,
        vocab_size=VOCABULARY,
        sliding_window=window,
        query_pre_attn_scalar=1,
        attn_logit_softcapping=CAP,
        initializer_range=0.3,
    )
    tokens_BT, _ = padded_batch()
    logits, gradients = {}, {}
    for attention in ("eager", "sdpa", CAPPED_ATTENTION):
        config._attn_implementation = attention
        torch.manual_seed(0)
        model = Gemma2ForCausalLM(config).float()
        logits[attention] = model(input_ids=tokens_BT, use_cache=False).logits
        logits[attention].log_softmax(-1)[:, :, 5].mean().backward()
        gradients[attention] = model.model.layers[0].self_attn.q_proj.weight.grad
    assert (logits["sdpa"] - logits["eager"]).abs().max() > 0.05, "the cap matters here"
    assert torch.allclose(logits[CAPPED_ATTENTION], logits["eager"], atol=1e-5, rtol=0)
    assert torch.allclose(gradients[CAPPED_ATTENTION], gradients["eager"], atol=1e-6, rtol=0)


def test_the_cap_is_that_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, 5, 8, generator=generator) for heads in (4, 2, 2))
    output, _ = capped_attention(torch.nn.Module(), query, key, value, None, softcap=CAP, scaling=2.0)
    for head in range(4):  # two heads of queries for each of keys
        scores = 2.0 * query[0, head] @ key[0, head // 2].T
        scores = CAP * torch.tanh(scores / CAP)
        for t in range(5):
            expected = scores[t, : t + 1].softmax(-1) @ value[0, head // 2][: t + 1]
            assert torch.allclose(output[0, t, head], expected, atol=1e-6)


def test_a_model_with_attention_of_its_own_keeps_it() -> None:
    import transformers

    def name_for(family: str) -> str | None:
        model, config = getattr(transformers, f"{family}ForCausalLM"), getattr(transformers, f"{family}Config")()
        return attention_for(model, config, slow_kernel=True)

    # Falcon and GPT-J know no other implementations; BLOOM adds a mask that must be numbers; GPT-OSS has sinks.
    assert [name_for(family) for family in ("Falcon", "GPTJ", "Bloom", "GptOss")] == [None] * 4
    assert name_for("Qwen3") == CPU_ATTENTION

    class Own(transformers.FalconForCausalLM):
        pass

    with pytest.raises(NotImplementedError, match="caps its attention scores in code of its own"):
        attention_for(Own, transformers.Gemma2Config(), slow_kernel=False)
