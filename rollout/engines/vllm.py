"""vLLM in this process: the only file that imports vLLM.

The engine core runs in the caller's process (`VLLM_ENABLE_V1_MULTIPROCESSING=0`) and is stepped by it: between two
steps it is idle, so weights can change there without pausing anything. Weights come through vLLM's own weight
transfer protocol (start, update, finish) with a backend of ours, `FlatWeightEngine`, that takes tensors from memory.

Importing this module sets process-wide defaults of vLLM. An engine must not share a process with the learner.
"""

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Read by vLLM when it is imported, so they are set before.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

import numpy as np
import torch
import torch._dynamo.config
from vllm import SamplingParams
from vllm.distributed.weight_transfer import WeightTransferEngine, WeightTransferEngineFactory
from vllm.distributed.weight_transfer.base import WeightTransferInitInfo, WeightTransferUpdateInfo
from vllm.engine.arg_utils import EngineArgs
from vllm.inputs import tokens_input
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.llm_engine import LLMEngine

from rollout.config import ModelConfig, RolloutConfig, SamplingConfig
from rollout.engines.outputs import is_reply
from rollout.engines.protocol import EngineOutput, SampleSpec
from rollout.episodes.conversation import digest_of
from rollout.episodes.environment import ToolCall
from rollout.episodes.tool_calls import Parse, Parsed
from rollout.errors import EngineError, ModelError
from rollout.transfer.manifest import TensorSpec
from rollout.types import FinishReason, Logprobs

BACKEND = "shoal_flat"
# Prompts shorter than a block share nothing; vLLM's default on CPUs is 128, longer than most prompts.
CPU_BLOCK_TOKENS = 32
# Tokens that one engine step may compute: room for the prompts of many completions at once.
MIN_BATCH_TOKENS = 4096
# vLLM's finish reasons in Shoal's words. "repetition" is only for requests that ask for it, and Shoal's do not; its
# tokens are the policy's own, so it is a truncation like another. A reason that a later vLLM brings says nothing about
# the tokens, so it is an error of that completion: one request must not cost the engine.
FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "repetition": FinishReason.LENGTH,
    "abort": FinishReason.ABORT,
}
TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class _NoInfo(WeightTransferInitInfo):
    pass


@dataclass
class _Tensors(WeightTransferUpdateInfo):
    tensors: list[tuple[str, torch.Tensor]] = field(default_factory=list)


class FlatWeightEngine(WeightTransferEngine[_NoInfo, _Tensors]):
    """Weight transfer backend that loads tensors handed over in memory."""

    init_info_cls = _NoInfo
    update_info_cls = _Tensors
    model: Any
    """A module with `load_weights`, as every model of vLLM's has."""
    _loaded: set[str] | None
    """Names, in the engine's model, of the weights that came in this update; None where the model does not tell."""

    def init_transfer_engine(self, init_info: _NoInfo) -> None:
        """Nothing to do: both ends are in this process."""

    def start_weight_update(self) -> None:
        """Turns the layers back into what a checkpoint is loaded into."""
        self._loaded = set()
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: _Tensors) -> None:
        """Loads tensors under their checkpoint names."""
        loaded = self.model.load_weights(update_info.tensors)
        self._loaded = None if loaded is None or self._loaded is None else self._loaded | set(loaded)

    def finish_weight_update(self) -> None:
        """Turns the layers into what the engine computes with. Errors: `EngineError` where some kept old weights."""
        finalize_layerwise_reload(self.model, self.model_config)
        tied = _tied_heads(self.model)
        self._repack(tied.values())
        self._check_complete(tied)

    def _repack(self, heads: Iterable[ParallelLMHead]) -> None:
        """On CPUs a linear layer computes with a packed copy of its weight, made when the weight is loaded. A head that
        is tied to the embedding receives no weight of its own, so its copy would stay that of the old weights."""
        for head in heads:
            if getattr(head, "cpu_linear", None) is not None:
                head.quant_method.process_weights_after_loading(head)

    def _check_complete(self, tied: Mapping[str, ParallelLMHead]) -> None:
        """Every weight of the engine's model came, or is one that came. vLLM only warns of layers that got none."""
        if self._loaded is None:
            return
        names = {name for name, _ in self.model.named_parameters()}
        kept = names - self._loaded - {f"{head}.weight" for head in tied}
        if kept:
            raise EngineError(
                f"the engine kept {len(kept)} of its weights when new ones came, the first is {min(kept)}: the learner "
                "has none of that name; the model's config.json and its files do not say the same, save it anew"
            )

    def shutdown(self) -> None:
        """Nothing to do: there is no connection to close."""


def _tied_heads(model: torch.nn.Module) -> dict[str, ParallelLMHead]:
    """Name -> output layer that computes with the weight of an embedding. The layers are asked: vLLM changes what its
    configuration says of it for models whose files hold both."""
    modules = dict(model.named_modules())
    embeddings = {
        id(module.weight)
        for module in modules.values()
        if isinstance(module, VocabParallelEmbedding) and not isinstance(module, ParallelLMHead)
    }
    heads = {name: module for name, module in modules.items() if isinstance(module, ParallelLMHead)}
    return {name: head for name, head in heads.items() if id(head.weight) in embeddings}


class WorkerExtension:
    """Named in the engine's arguments: importing this module in vLLM's worker process registers the backend."""


def _register_backend() -> None:
    if BACKEND not in WeightTransferEngineFactory._registry:  # noqa: SLF001  # twice raises, and nothing else tells
        WeightTransferEngineFactory.register_engine(BACKEND, FlatWeightEngine)


_register_backend()


def engine_args(model_dir: str, model: ModelConfig, rollout: RolloutConfig, *, seed: int) -> EngineArgs:
    """vLLM's arguments for a rollout configuration."""
    on_gpu = rollout.gpus_per_engine > 0
    args: dict[str, Any] = {
        "model": model_dir,
        "dtype": rollout.dtype,
        "seed": seed,
        "max_model_len": model.max_context_tokens,
        "max_num_seqs": rollout.max_num_seqs,
        "max_num_batched_tokens": max(MIN_BATCH_TOKENS, model.max_context_tokens, rollout.max_num_seqs),
        "enable_prefix_caching": rollout.prefix_caching,
        "trust_remote_code": model.trust_remote_code,
        # What was really sampled from: after temperature, top-p and top-k, not before.
        "logprobs_mode": "processed_logprobs",
        "weight_transfer_config": {"backend": BACKEND},
        "worker_extension_cls": f"{__name__}.{WorkerExtension.__name__}",
        "disable_log_stats": True,
        "kv_cache_memory_bytes": rollout.kv_cache_mib * 2**20,
    }
    if on_gpu:
        num_gpus = args["tensor_parallel_size"] = max(1, int(rollout.gpus_per_engine))
        if num_gpus > 1:
            # Within a placement group vLLM would have its workers be Ray actors, which want the GPUs that this one has.
            args["distributed_executor_backend"] = "mp"
    else:
        # Compiling takes 46 s at each start and decodes no faster on two cores.
        # A prompt that is computed in pieces makes vLLM rewind the sample's random generator, which generators of a
        # CPU cannot do: the engine would end there. So prompts are computed whole.
        args |= {"enforce_eager": True, "block_size": CPU_BLOCK_TOKENS, "enable_chunked_prefill": False}
    return EngineArgs(**args)


class VLLMEngine:
    """One vLLM engine. Implements `rollout.engines.protocol.Engine`."""

    def __init__(self, model_dir: str, model: ModelConfig, rollout: RolloutConfig, *, seed: int) -> None:
        if current_platform.is_cpu():
            # vLLM counts the ranks of sampled tokens in a function that torch would compile at the first one: seconds
            # for each engine, and a C++ compiler, for numbers that nobody here asks for.
            torch._dynamo.config.disable = True  # noqa: SLF001  # its documented switch for a whole process
        self._engine = LLMEngine.from_engine_args(engine_args(model_dir, model, rollout, seed=seed))
        self._engine.set_weight_version("0")
        self._cache_salt = "v0"
        self._num_probes = 0
        self._finished_in_probe: list[EngineOutput] = []
        self._running: set[str] = set()

    def add(self, specs: Sequence[SampleSpec]) -> None:
        """As in `Engine`; the sample of a request depends on its own seed alone."""
        for spec in specs:
            prompt = tokens_input(list(spec.token_ids), cache_salt=self._cache_salt)
            self._engine.add_request(spec.request_id, prompt, _sampling_params(spec.sampling, spec.seed))
            self._running.add(spec.request_id)

    def step(self) -> list[EngineOutput]:
        """As in `Engine`."""
        earlier, self._finished_in_probe = self._finished_in_probe, []
        finished = earlier + [_engine_output(output) for output in self._engine.step() if output.finished]
        self._running.difference_update(output.request_id for output in finished)
        return finished

    def abort(self, request_ids: Sequence[str]) -> None:
        """As in `Engine`."""
        given_up = self._running.intersection(request_ids)
        self._engine.abort_request(sorted(given_up))
        self._running -= given_up
        self._finished_in_probe = [o for o in self._finished_in_probe if o.request_id not in given_up]

    def abort_all(self) -> None:
        """As in `Engine`."""
        self.abort(list(self._running))

    def has_unfinished(self) -> bool:
        """As in `Engine`."""
        return bool(self._finished_in_probe) or self._engine.has_unfinished_requests()

    def start_weight_update(self) -> None:
        """As in `Engine`."""
        self._engine.collective_rpc("start_weight_update")

    def load_tensors(self, tensors: Sequence[tuple[TensorSpec, np.ndarray]]) -> None:
        """As in `Engine`; the bytes are copied into the parameters."""
        loaded = [(spec.name, _as_tensor(spec, data)) for spec, data in tensors]
        self._engine.collective_rpc("update_weights", args=({"tensors": loaded},))

    def finish_weight_update(self, policy_version: int) -> None:
        """As in `Engine`. Running requests go on, with keys and values of the new weights."""
        self._engine.collective_rpc("finish_weight_update")
        # Running requests are preempted and their keys and values computed anew: nothing of the old weights remains.
        if not self._engine.reset_prefix_cache(reset_running_requests=True):
            raise EngineError(
                f"the engine kept keys and values of old weights while it took version {policy_version}; resume the run"
            )
        self._engine.set_weight_version(str(policy_version))
        # The salt makes a cached block of another version unreachable even if a reset ever left one behind.
        self._cache_salt = f"v{policy_version}"

    def prompt_logprobs(self, sequences: Sequence[Sequence[int]]) -> list[Logprobs]:
        """As in `Engine`."""
        # Requests that are kept running across a sync are stepped along; what ends here is returned by the next step.
        ids = []
        for sequence in sequences:
            self._num_probes += 1
            ids.append(f"probe-{self._num_probes}")
            params = SamplingParams(
                max_tokens=1, temperature=0.0, prompt_logprobs=0, output_kind=RequestOutputKind.FINAL_ONLY
            )
            self._engine.add_request(ids[-1], tokens_input(list(sequence)), params)
        found: dict[str, Logprobs] = {}
        while len(found) < len(ids):
            for output in self._engine.step():
                if output.finished and output.request_id not in ids:
                    self._finished_in_probe.append(_engine_output(output))
                elif output.finished:
                    found[output.request_id] = _prompt_logprobs(output)
        return [found[i] for i in ids]

    def close(self) -> None:
        """As in `Engine`; it cannot be used again."""
        # The process ends after this; vLLM's own shutdown waits for workers that an in-process engine does not have.
        del self._engine


def tool_parser(name: str, tokenizer: Any, schemas: Sequence[Mapping[str, Any]]) -> Parse:
    """vLLM's parser of that name. Errors: `ModelError` for one that vLLM does not have, or that this tokenizer is not
    made for."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest, ChatCompletionToolsParam
    from vllm.tool_parsers import ToolParserManager

    known = ToolParserManager.list_registered()
    if name not in known:
        raise ModelError(f"task.tool_parser is {name!r}, and vLLM has none of that name; it has {', '.join(known)}")
    tools: list[Any] = [ChatCompletionToolsParam.model_validate(schema) for schema in schemas]
    request = ChatCompletionRequest.model_validate({"messages": [], "tools": tools})
    try:
        parser: Any = ToolParserManager.get_tool_parser(name)(tokenizer, tools)
    except Exception as error:  # each has its own way to say that tokens of its model are missing
        raise ModelError(
            f"task.tool_parser {name!r} is not for this model: {' '.join(str(error).split())[:200]}; set another"
        ) from error
    logger = logging.getLogger(type(parser).__module__)

    def parse(text: str) -> Parsed:
        # A call that cannot be read is what models write until they have learned it, and no news with a traceback. Set
        # each time: vLLM sets the levels of all its loggers again when an engine starts.
        logger.setLevel(logging.CRITICAL)
        try:
            return _parsed(parser.extract_tool_calls(text, request))
        except Exception as error:  # noqa: BLE001  # parsers meet whatever a model writes, and some raise of it
            return Parsed(problem=f"The call of a tool could not be read: {type(error).__name__}.")

    return parse


def _parsed(found: Any) -> Parsed:
    calls = []
    for call in found.tool_calls if found.tools_called else ():
        try:
            arguments = json.loads(call.function.arguments)
        except (ValueError, TypeError):
            arguments = None
        if not isinstance(arguments, dict):
            return Parsed(problem=f"The arguments of {call.function.name} are not a JSON object.")
        calls.append(ToolCall(name=str(call.function.name), arguments=arguments))
    return Parsed(calls=tuple(calls))


def _sampling_params(sampling: SamplingConfig, seed: int | None) -> SamplingParams:
    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_tokens,
        stop=list(sampling.stop),
        stop_token_ids=list(sampling.stop_token_ids),
        # Rewards read what was sampled, special tokens too: <think> and <answer> are tokens of their own in some
        # vocabularies. What ended a completion is no part of its text in either case. Nor are blanks that nobody
        # sampled, which vLLM would put between two special tokens.
        skip_special_tokens=False,
        spaces_between_special_tokens=False,
        seed=seed,
        logprobs=0,
        # Lists of numbers in place of a dictionary and an object for each token.
        flat_logprobs=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _as_tensor(spec: TensorSpec, data: np.ndarray) -> torch.Tensor:
    # The bytes may be a read-only view of shared memory; vLLM copies them into its parameters, so nothing writes here.
    return torch.frombuffer(data, dtype=TORCH_DTYPES[spec.dtype]).view(spec.shape)


def _prompt_logprobs(output: Any) -> Logprobs:
    scored = zip(output.prompt_token_ids[1:], output.prompt_logprobs[1:], strict=True)
    return np.array([entry[token].logprob for token, entry in scored], np.float32)


def _engine_output(output: Any) -> EngineOutput:
    sampled = output.outputs[0]
    finish_reason = FINISH_REASONS.get(sampled.finish_reason, FinishReason.ERROR)
    token_ids = np.array(sampled.token_ids, np.int32)
    # With `logprobs=0` a position holds the sampled token alone; more than one would shift all that follow.
    logprobs = np.array(sampled.logprobs.logprobs if sampled.logprobs is not None else (), np.float32)
    if not finish_reason.is_trainable:  # an engine that stopped in the middle of a token has no number for it
        token_ids, logprobs = token_ids[: len(logprobs)], logprobs[: len(token_ids)]
    assert len(logprobs) == len(token_ids), (len(logprobs), len(token_ids))
    return EngineOutput(
        request_id=output.request_id,
        token_ids=token_ids,
        logprobs=logprobs,
        text=sampled.text,
        finish_reason=finish_reason,
        versions=tuple((int(span.version), span.start, span.end) for span in sampled.weight_versions or ()),
        read=digest_of(output.prompt_token_ids) if is_reply(output.request_id) else "",
    )
