"""A Hugging Face directory as a causal language model in which every weight is from the files, none drawn at random.

transformers draws weights that the files lack at random, and passes over those that it has no place for. A policy that
is half of what was meant would train all the same: engines get their weights from the learner, so the two agree.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from learner.model.attention import attention_for
from rollout.errors import ModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

COMPUTED_BUFFERS = re.compile(r"(^|\.)(rotary_emb\.inv_freq|(attn|attention)\.(bias|masked_bias)|position_ids)$")
"""Tensors that older versions of transformers saved though they follow from the configuration: masks, frequencies."""
NAMED_AT_MOST = 3
"""Tensors that an error names; more are counted."""


def read_model_config(model_dir: str | Path, *, trust_remote_code: bool = False) -> "PretrainedConfig":
    """The configuration of a causal language model that can be trained: no other kind of model, and not quantised.

    Errors: `ModelError`.
    """
    from transformers import AutoConfig

    if not (Path(model_dir) / "config.json").is_file():
        raise ModelError(f"{model_dir} is no Hugging Face model directory: it has no config.json")
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            str(model_dir), trust_remote_code=trust_remote_code, local_files_only=True
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ModelError(f"cannot load a causal language model from {model_dir}: {error}") from error
    _check_purpose(config, model_dir)
    _check_precision(config, model_dir)
    return config


def _check_purpose(config: "PretrainedConfig", model_dir: str | Path) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    named: Sequence[str] = getattr(config, "architectures", None) or ()
    if "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        return  # a class of the model's own
    known = {
        name
        for names in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
        for name in ((names,) if isinstance(names, str) else names)
    }
    if named and not known.intersection(named):
        raise ModelError(
            f"{model_dir} is a {named[0]}, which gives no probabilities of next tokens; set model.path to a causal "
            "language model"
        )


def _check_precision(config: "PretrainedConfig", model_dir: str | Path) -> None:
    for each in (config, config.get_text_config()):
        found = getattr(each, "quantization_config", None)
        if found is None:
            continue
        method = found.get("quant_method") if isinstance(found, dict) else getattr(found, "quant_method", None)
        method = getattr(method, "value", method) or "an unknown method"
        raise ModelError(
            f"{model_dir} has weights quantised with {method}, which have no gradients; set model.path to the model "
            "that it was made from, in float32, bfloat16 or float16"
        )


def load_skeleton(
    model_dir: str | Path, config: "PretrainedConfig", *, trust_remote_code: bool = False
) -> "PreTrainedModel":
    """The model without the contents of its weights, once their names and shapes are sure to be those of the files.
    Takes a fraction of a second, whatever the size.

    Errors: `ModelError`.
    """
    model = _load(model_dir, config, trust_remote_code=trust_remote_code, device_map="meta")
    _check_ties(model, model_dir)
    return model


def _check_ties(model: "PreTrainedModel", model_dir: str | Path) -> None:
    """Of two tied weights the embedding is the one that vLLM takes from the files; transformers takes either."""
    from safetensors import safe_open

    names: set[str] = set()
    for path in Path(model_dir).glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            names.update(file.keys())
    ties: Mapping[str, str] = getattr(model, "all_tied_weights_keys", None) or {}
    for other, embedding in ties.items():
        if other in names and embedding not in names:
            raise ModelError(
                f"{model_dir} holds {other} and not {embedding}, though its config.json says that they are one "
                "(tie_word_embeddings): vLLM would draw the embeddings at random; name it so in the files, or load the "
                "model with transformers and save it anew"
            )


def load_causal_lm(
    model_dir: str | Path, *, trust_remote_code: bool = False, slow_kernel: bool = False
) -> "PreTrainedModel":
    """A Hugging Face directory as a model with fp32 weights, on the CPU, without dropout and without a cache.

    `slow_kernel` as in `attention_for`. Errors: `ModelError` when the directory cannot be loaded.
    """
    config = read_model_config(model_dir, trust_remote_code=trust_remote_code)
    config.use_cache = False
    _turn_dropout_off(config)
    _compute_as_engines(config)
    skeleton = load_skeleton(model_dir, config, trust_remote_code=trust_remote_code)
    attention = _attention(type(skeleton), config, model_dir, slow_kernel=slow_kernel)
    model = _load(model_dir, config, trust_remote_code=trust_remote_code, attn_implementation=attention)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def _attention(
    model_class: "type[PreTrainedModel]", config: "PretrainedConfig", model_dir: str | Path, *, slow_kernel: bool
) -> str | None:
    try:
        return attention_for(model_class, config, slow_kernel=slow_kernel)
    except NotImplementedError as error:
        raise ModelError(f"{model_dir} cannot be trained: {error}, which the learner cannot compute") from error


def _load(
    model_dir: str | Path, config: "PretrainedConfig", *, trust_remote_code: bool, **how: Any
) -> "PreTrainedModel":
    from transformers import AutoModelForCausalLM

    load: Any = AutoModelForCausalLM.from_pretrained  # its types know nothing of `output_loading_info`
    try:
        with _quiet():
            model, found = load(
                str(model_dir),
                config=config,
                dtype=torch.float32,
                trust_remote_code=trust_remote_code,
                local_files_only=True,
                output_loading_info=True,
                # Told below, with the names.
                ignore_mismatched_sizes=True,
                **how,
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError, AttributeError) as error:
        raise ModelError(f"cannot load a causal language model from {model_dir}: {_first_sentence(error)}") from error
    _check_layout(model, model_dir)
    _check_tensors(found, model_dir)
    skeleton_or_model: PreTrainedModel = model
    return skeleton_or_model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' bar and its table of what is missing: what matters of it is an error here."""
    from transformers.utils import logging

    verbosity, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bar:
            logging.enable_progress_bar()


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _check_layout(model: nn.Module, model_dir: str | Path) -> None:
    """Weights travel to the engines under the names that the model's files have; joined ones have none."""
    from transformers.core_model_loading import WeightConverter

    for conversion in getattr(model, "_weight_conversions", None) or ():
        if isinstance(conversion, WeightConverter):
            raise ModelError(
                f"{model_dir} cannot be trained: its weights {conversion.source_patterns} are joined when they are "
                "loaded (a mixture of experts), and the engines would not know them; use a model without"
            )


def _check_tensors(found: Mapping[str, Any], model_dir: str | Path) -> None:
    """`found` is what transformers says of a load: names that are missing, unexpected, or of another shape."""
    if missing := found["missing_keys"]:
        raise ModelError(
            f"{model_dir} lacks {_named(missing)}, which would be drawn at random; copy or download it again, or save "
            "the model anew from what it was trained in"
        )
    if mismatched := found["mismatched_keys"]:
        name, in_file, wanted = min(mismatched)
        raise ModelError(
            f"{model_dir} does not fit its config.json: {name} is {list(in_file)} in the files and {list(wanted)} by "
            f"the configuration ({len(mismatched)} such tensors); copy or download both again"
        )
    unexpected = [name for name in found["unexpected_keys"] if not COMPUTED_BUFFERS.search(name)]
    if unexpected:
        raise ModelError(
            f"{model_dir} holds {_named(unexpected)}, for which the model of its config.json has no place, so that "
            "they would be left out; take the config.json that belongs to the weights, or remove these tensors"
        )


def _named(names: Collection[str]) -> str:
    first = sorted(names)[:NAMED_AT_MOST]
    others = f" and {len(names) - len(first)} more" if len(names) > len(first) else ""
    return f"{len(names)} {'tensor' if len(names) == 1 else 'tensors'} ({', '.join(first)}{others})"


def _compute_as_engines(config: "PretrainedConfig") -> None:
    """A token in a layer with a window sees `sliding_window` tokens before itself in vLLM's Cohere 2, as it was
    trained, and one less in transformers'."""
    if config.model_type == "cohere2" and isinstance(config.sliding_window, int):
        config.sliding_window += 1


def _turn_dropout_off(config: object) -> None:
    """Dropout would make the learner's probabilities differ from the sampler's at unchanged weights."""
    for name, value in vars(config).items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
