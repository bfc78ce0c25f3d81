"""Attention as the engines compute it, where transformers' own choice is slow or leaves something out.

On CPUs PyTorch's kernel for bf16 has a slow backward pass, so the same scaled dot product is computed in fp32. Measured
on two cores for 59 sequences of 69 tokens, 9 heads of 64: forward and backward take 190 ms in bf16 and 35 ms in fp32,
casts not counted.

Some families cap the attention scores (Gemma 2). transformers' fused kernels are handed the cap and pass over it
without a word, where the engines apply it: such models are computed here, without a fused kernel.

Dimensions: B sequences, A heads, T query positions, S key positions, D values of a head.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from learner.algorithm.packing import Packing

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

CPU_ATTENTION = "shoal_cpu_fp32"
CAPPED_ATTENTION = "shoal_capped"
FUSED_ATTENTION = "shoal_fused"
PACKING = "shoal_packing"
"""The keyword under which a `Packing` travels through a model to its attention."""


def attention_for(model_class: "type[PreTrainedModel]", config: "PretrainedConfig", *, slow_kernel: bool) -> str | None:
    """The name of the implementation to load a model with; None leaves the choice to transformers. `slow_kernel` says
    that the model will compute in bf16 on a CPU.

    Errors: `NotImplementedError` for a model that caps its scores in code of its own.
    """
    is_replaceable = getattr(model_class, "_supports_attention_backend", False)
    if getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None:
        if not is_replaceable:
            raise NotImplementedError(f"{model_class.__name__} caps its attention scores in code of its own")
        return _register(CAPPED_ATTENTION, capped_attention)
    # Without the fused kernel there is more to the attention than that kernel knows of, such as sinks.
    has_fused = getattr(model_class, "_supports_sdpa", False)
    if not (is_replaceable and has_fused):
        return None
    return _register(CPU_ATTENTION, fp32_attention) if slow_kernel else _register(FUSED_ATTENTION, fused_attention)


def is_packed_attention(name: str | None) -> bool:
    """Whether the implementation of that name computes packed rows."""
    return name in (CPU_ATTENTION, CAPPED_ATTENTION, FUSED_ATTENTION)


def _register(name: str, implementation: Any) -> str:
    """Makes an implementation known to transformers, with masks that say True where a query may look."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(name, partial(_packed_or_not, implementation))
    AttentionMaskInterface.register(name, sdpa_mask)
    return name


def _packed_or_not(  # what transformers hands over
    implementation: Callable[..., tuple[Tensor, None]],
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """[B, T, A, D] by an implementation; of a packed row block by block, since none looks into another."""
    packing: Packing | None = kwargs.pop(PACKING, None)
    if packing is None:
        return implementation(module, query, key, value, attention_mask, **kwargs)
    dtype, outputs = query.dtype, list[Tensor]()
    if implementation is not fused_attention:
        # Cast before it is cut: gradients of a prompt that many completions look at are added up in fp32.
        query, key, value = query.float(), key.float(), value.float()
    # Cut once, and not a slice for each part, whose backward pass would fill a whole row each time.
    query_parts, *key_parts = (tensor.split(packing.pieces, dim=2) for tensor in (query, key, value))
    for part in packing.parts:
        queries = query_parts[part.queries]
        keys = [torch.cat([pieces[place] for place in part.keys], dim=2) for pieces in key_parts]
        mask_TS = packing.mask_TS(
            part, query.device, kwargs.get("sliding_window", getattr(module, "sliding_window", None))
        )
        outputs.append(implementation(module, queries, *keys, mask_TS[None, None], **kwargs)[0])
    return torch.cat(outputs, dim=1).to(dtype), None


def fused_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    """PyTorch's own choice of a kernel, in the precision that it is given."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    assert kwargs.get("softcap") is None, "the fused kernel knows no cap: see `attention_for`"
    output, _ = sdpa_attention_forward(module, query, key, value, *args, **kwargs)
    return output, None


def fp32_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    """What transformers calls for each layer: query, key and value [B, A, T, D] in any precision."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    assert kwargs.get("softcap") is None, "the fused kernel knows no cap: see `attention_for`"
    # Autocast would put the product back into bf16.
    with torch.autocast(query.device.type, enabled=False):
        output, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), *args, **kwargs)
    return output.to(query.dtype), None


def capped_attention(  # noqa: PLR0913  # what transformers hands over
    _: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    softcap: float | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_others: Any,
) -> tuple[Tensor, None]:
    """softmax(cap * tanh(scores / cap)) @ value in fp32, with scores = scaling * query @ key^T (Gemma 2, arXiv
    2408.00118, section 2). `attention_mask` [B, 1, T, S] is True where a query may look; None is causal."""
    assert dropout == 0.0, "dropout is off: the engines have none"
    num_queries, num_keys, head_size = query.shape[2], key.shape[2], query.shape[3]
    # The engines' several queries for a key and value: each head of keys serves as many in a row.
    repeats = query.shape[1] // key.shape[1]
    with torch.autocast(query.device.type, enabled=False):
        key_BASD, value_BASD = (tensor.float().repeat_interleave(repeats, dim=1) for tensor in (key, value))
        scores_BATS = query.float() @ key_BASD.transpose(2, 3) * (head_size**-0.5 if scaling is None else scaling)
        if softcap is not None:
            scores_BATS = torch.tanh(scores_BATS / softcap) * softcap
        if attention_mask is None:
            allowed_TS = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query.device)
            attention_mask = allowed_TS.tril(num_keys - num_queries)
        scores_BATS = scores_BATS.masked_fill(~attention_mask, float("-inf"))
        output_BATD = functional.softmax(scores_BATS, dim=-1) @ value_BASD
    return output_BATD.transpose(1, 2).contiguous().to(query.dtype), None
