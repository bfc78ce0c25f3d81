"""The policy, and what it is compared with, as modules whose forward pass gives log-probabilities, not logits.

DeepSpeed is handed the whole of it: ZeRO-3 fills a module's weights when that module is called and releases them after,
so a weight that is used outside the forward pass of a module that owns it would be empty.

Dimensions: B sequences, T token positions, N predicted tokens, H hidden, V vocabulary.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from learner.algorithm.batching import ModelInputs
from learner.algorithm.packing import pack
from learner.model.attention import PACKING, is_packed_attention
from learner.model.divergences import Comparison, Predictions, divergence, divergence_from_logits
from learner.model.loading import load_causal_lm
from learner.model.logprobs import logprobs_from_logits, token_logprobs

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

MAX_PACKING_ERROR = 1e-6
MAX_PACKING_LEAK = 1e-3
"""Difference of logits, as such and over what looking at a neighbour changes, up to which a packed row is taken for
right. Rounding is some 1e-6 of that."""
TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class LogprobHead(nn.Module):
    """The model's output matrix (the same parameter object), applied in chunks. See `learner/model/logprobs.py`."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight
        self.bias = linear.bias

    def forward(
        self,
        hidden_NH: Tensor,
        targets_N: Tensor,
        *,
        temperature: float,
        dtype: torch.dtype,
        entropy_grad: bool = False,
        against: tuple[Comparison, ...] = (),
    ) -> tuple[Tensor, ...]:
        """([N], [N], [N] of each comparison) fp32: as `token_logprobs`, and as `divergence`."""
        logprobs_N, entropy_N = token_logprobs(
            hidden_NH,
            self.weight,
            self.bias,
            targets_N,
            temperature=temperature,
            dtype=dtype,
            entropy_grad=entropy_grad,
        )
        compared = [
            divergence(hidden_NH, self.weight, self.bias, comparison, temperature=temperature, dtype=dtype)
            for comparison in against
        ]
        return logprobs_N, entropy_N, *compared


class LogprobModel(nn.Module):
    """A causal language model that returns the log-probabilities of given tokens.

    Weights are fp32; with `dtype` bfloat16 the forward pass runs under autocast.
    """

    def __init__(self, policy: "PreTrainedModel", *, dtype: torch.dtype) -> None:
        super().__init__()
        self.policy = policy
        self.dtype = dtype
        head = _plain_head(policy)
        self.head = None if head is None else LogprobHead(head)
        self.can_pack = _can_pack(policy)
        """Whether sequences may share a row, and a prompt."""

    def forward(
        self,
        inputs: ModelInputs,
        targets_N: Tensor | None,
        temperature: float,
        entropy_grad: bool = False,
        against: tuple[Comparison, ...] = (),
    ) -> tuple[Tensor, ...]:
        """([N], [N], [N] of each comparison) fp32: log-probability (nats) of `targets_N` and entropy where each of them
        is predicted, and the divergences from what the policy is compared with there.

        Without targets: what `predictions_of` takes. No attention mask: padding stands on the right, where a causal
        model does not look, and of a packed row the attention itself knows who may look where.
        """
        positions_N = inputs.positions_N
        read: dict[str, Any] = {"input_ids": inputs.input_ids_BT, "use_cache": False}
        if inputs.packing is not None:
            assert self.can_pack, "a packed row, for a model whose attention cannot be told where to look"
            read |= {"position_ids": inputs.position_ids_BT, PACKING: inputs.packing}
        # No cache of casts: each weight is used once in a pass, and under ZeRO-3 the casts would outlive the weights.
        with torch.autocast(
            positions_N.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32, cache_enabled=False
        ):
            if self.head is None:
                logits_BTV = self.policy(**read).logits
                logits_NV = logits_BTV.flatten(0, 1).index_select(0, positions_N)
                if targets_N is None:
                    return (logits_NV,)
                found = logprobs_from_logits(logits_NV, targets_N, temperature=temperature, entropy_grad=entropy_grad)
                return *found, *(divergence_from_logits(logits_NV, one, temperature=temperature) for one in against)
            output = self.policy.base_model(**read)
            hidden_NH = output.last_hidden_state.flatten(0, 1).index_select(0, positions_N)
            if targets_N is None:
                return (hidden_NH,)
            # Called, not `forward`: DeepSpeed fills the weights in a hook of the call.
            found_N: tuple[Tensor, ...] = self.head(
                hidden_NH,
                targets_N,
                temperature=temperature,
                dtype=self.dtype,
                entropy_grad=entropy_grad,
                against=against,
            )
            return found_N

    def predictions_of(self, states_N: Tensor, *, with_matrix: bool) -> Predictions:
        """What a pass without targets gave, for others to be compared with. `with_matrix`: by this model's own output
        matrix, which must be whole; else by that of the model that is compared."""
        if self.head is None:
            return Predictions(states_N=states_N, is_logits=True)
        if not with_matrix:
            return Predictions(states_N=states_N)
        bias_V = None if self.head.bias is None else self.head.bias.detach()
        return Predictions(states_N=states_N, weight_VH=self.head.weight.detach(), bias_V=bias_V)

    @contextmanager
    def computing_in(self, dtype: torch.dtype) -> Iterator[None]:
        """While inside, the forward pass runs in another precision. In bf16 it is rounded where an engine rounds: what
        goes from layer to layer is bf16 too, which autocast leaves in fp32."""
        before, self.dtype = self.dtype, dtype
        rounds = dtype != torch.float32
        layers = [m for m in self.policy.modules() if rounds and isinstance(m, nn.Embedding | _layer_class())]
        hooks = [layer.register_forward_hook(lambda _layer, _inputs, output: _cast(output, dtype)) for layer in layers]
        try:
            yield
        finally:
            self.dtype = before
            for hook in hooks:
                hook.remove()

    def at_each_layer(self, call: Callable[[], None]) -> None:
        """From now on `call` is called at each layer of a forward pass and, where there is one, of its backward pass.
        What it raises ends the pass."""

        def visit(_layer: nn.Module, _inputs: Any, output: Any) -> None:
            call()
            hidden = output[0] if isinstance(output, tuple) else output
            if isinstance(hidden, Tensor) and hidden.requires_grad:
                hidden.register_hook(lambda _: call())

        for module in self.policy.modules():
            if isinstance(module, _layer_class()):
                module.register_forward_hook(visit)

    def named_weights(self) -> dict[str, nn.Parameter]:
        """Parameters under their Hugging Face names; a tied output matrix is there once, as the input embedding."""
        return dict(self.policy.named_parameters())

    def named_buffers_in_files(self) -> dict[str, Tensor]:
        """What else the model's files hold, under its name there: constants of activations, say (Apertus)."""
        weights = {name for name, _ in self.policy.named_parameters(remove_duplicate=False)}
        return {name: value for name, value in self.policy.state_dict().items() if name not in weights}


def _layer_class() -> type[nn.Module]:
    """What every layer of transformers' decoders is."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return GradientCheckpointingLayer


def _cast(output: Any, dtype: torch.dtype) -> Any:
    """The output of a layer, a tensor or a tuple that begins with one."""
    if isinstance(output, tuple):
        return (_cast(output[0], dtype), *output[1:])
    return output.to(dtype) if isinstance(output, Tensor) and output.is_floating_point() else output


def _plain_head(policy: "PreTrainedModel") -> nn.Linear | None:
    """The output layer, where logits are exactly its matrix times the last hidden state; else None.

    Some families scale the logits or cap them (Cohere, Granite, Gemma). Rather than a list of families: compute
    both on a few tokens and compare. A cap hardly changes small logits, so it is asked for by its name as well.
    """
    head = policy.get_output_embeddings()
    if type(head) is not nn.Linear or policy.base_model is policy:
        return None
    if getattr(policy.config.get_text_config(), "final_logit_softcapping", None):
        return None
    ids_BT = torch.arange(min(8, head.out_features), device=head.weight.device)[None]
    with torch.no_grad():
        hidden_BTH = policy.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
        logits_BTV = policy(input_ids=ids_BT, use_cache=False).logits
        is_plain = torch.allclose(head(hidden_BTH).float(), logits_BTV.float(), rtol=1e-5, atol=1e-6)
    return head if is_plain else None


def _can_pack(policy: "PreTrainedModel") -> bool:
    """Whether a packed row gives what its sequences give alone. Rather than a list of families: compute both on a few
    tokens and compare. Some models hand nothing on to their attention, and some have layers without one. What depends
    on the length of a row cannot be seen on a short one, and is asked for by its name."""
    is_packed = is_packed_attention(getattr(policy.config, "_attn_implementation", None))
    if not is_packed or _depends_on_length(policy.config.get_text_config()):
        return False
    weight: Any = policy.get_input_embeddings().weight
    prompts, completions = ([3, 5, 7, 11], [3, 5, 7, 11], [6, 8]), ([13, 2], [17, 19, 4], [9, 1])
    sequences = [[*prompt, *ids] for prompt, ids in zip(prompts, completions, strict=True)]
    row = [*sequences[0], *completions[1], *sequences[2]]

    def logits_of(ids: list[int], **words: Any) -> Tensor:
        ids_1T = torch.tensor([ids], device=weight.device) % len(weight)
        logits_1TV: Tensor = policy(input_ids=ids_1T, use_cache=False, **words).logits
        return logits_1TV[0].float()

    with torch.no_grad():
        alone = [logits_of(ids) for ids in sequences]
        wanted = torch.cat([alone[0], alone[1][len(prompts[1]) :], alone[2]])
        leak = float((logits_of(row) - wanted).abs().max())  # everything looks at everything before it
        for whole_tokens in (len(row), 1):
            packing, _ = pack(prompts, [len(ids) for ids in completions], whole_tokens=whole_tokens)
            position_ids_1T = torch.from_numpy(packing.position_ids_N()[None]).to(weight.device)
            try:
                found = logits_of(row, position_ids=position_ids_1T, **{PACKING: packing})
            except TypeError:  # its forward pass takes no such word
                return False
            if float((found - wanted).abs().max()) > max(MAX_PACKING_ERROR, MAX_PACKING_LEAK * leak):
                return False
    # A window is longer than what is computed here, but some layer must have been told of it.
    has_window = getattr(policy.config.get_text_config(), "sliding_window", None) is not None
    return not has_window or any(packing.windows)


def _depends_on_length(config: "PretrainedConfig") -> bool:
    """Whether what a token is depends on how long its row is, or on more of its place than a window: attention in
    chunks and scales by position (Llama 4), rotations that change with the longest position (longrope, dynamic)."""
    if getattr(config, "attention_chunk_size", None) or getattr(config, "attn_temperature_tuning", None):
        return True
    if not set(getattr(config, "layer_types", None) or ()) <= {"full_attention", "sliding_attention"}:
        return True
    ropes = getattr(config, "rope_parameters", None) or {}
    each = [ropes, *(value for value in ropes.values() if isinstance(value, dict))]
    return any(rope.get("rope_type") in ("longrope", "dynamic") for rope in each)


def build_policy(
    model_dir: str, *, dtype: str, gradient_checkpointing: bool, trust_remote_code: bool = False, on_gpu: bool = False
) -> LogprobModel:
    """The policy to train, on the CPU as yet; `on_gpu` says where it will compute."""
    policy = load_causal_lm(
        model_dir, trust_remote_code=trust_remote_code, slow_kernel=dtype == "bfloat16" and not on_gpu
    )
    model = LogprobModel(policy, dtype=TORCH_DTYPES[dtype])
    if gradient_checkpointing:
        policy.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    # Training mode is what turns gradient checkpointing on; dropout is off either way.
    return model.train()
