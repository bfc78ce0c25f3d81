"""A model whose weights are all from its files, or a sentence that names what is not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from learner.model.loading import load_causal_lm, load_skeleton, read_model_config
from rollout.errors import ModelError
from tests.learner.samples import save_toy_model

Weights = dict[str, torch.Tensor]
LAYER = "model.layers.1.self_attn"


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return Path(save_toy_model(tmp_path / "model", tied=False))


def rewrite(model_dir: Path, change: Callable[[Weights], Any]) -> Weights:
    weights: Weights = load_file(model_dir / "model.safetensors")
    change(weights)
    save_file(weights, model_dir / "model.safetensors", {"format": "pt"})
    return weights


def configure(model_dir: Path, **fields: Any) -> None:
    path = model_dir / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def load_both(model_dir: Path) -> str:
    """What is said before anything starts; where the model is loaded, the same is said."""
    with pytest.raises(ModelError) as before:
        load_skeleton(model_dir, read_model_config(model_dir))
    with pytest.raises(ModelError) as loaded:
        load_causal_lm(model_dir)
    assert str(loaded.value) == str(before.value)
    return str(before.value)


def test_a_whole_model_is_loaded_as_it_is(model_dir: Path) -> None:
    weights = rewrite(model_dir, lambda _: None)
    skeleton = load_skeleton(model_dir, read_model_config(model_dir))
    assert {parameter.device.type for parameter in skeleton.parameters()} == {"meta"}, "no weight is read for it"
    model = load_causal_lm(model_dir)
    found = dict(model.named_parameters())
    assert set(found) == set(weights)
    assert all(torch.equal(found[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        (["lm_head.weight"], "1 tensor (lm_head.weight)"),
        (["model.norm.weight"], "1 tensor (model.norm.weight)"),
        ([f"{LAYER}.{p}_proj.weight" for p in "qkvo"], f"4 tensors ({LAYER}.k_proj.weight, {LAYER}.o_proj.weight, "),
    ],
)
def test_missing_weights_are_named(model_dir: Path, missing: list[str], named: str) -> None:
    rewrite(model_dir, lambda weights: [weights.pop(name) for name in missing])
    message = load_both(model_dir)
    assert f"lacks {named}" in message
    assert "drawn at random" in message


def test_a_tied_head_is_not_missing(tmp_path: Path) -> None:
    model_dir = Path(save_toy_model(tmp_path / "model", tied=True))
    model = load_causal_lm(model_dir)
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_a_tied_head_that_is_also_in_the_file_is_tied_where_it_is_the_same(tmp_path: Path, factor: float) -> None:
    model_dir = Path(save_toy_model(tmp_path / "model", tied=True))
    rewrite(
        model_dir, lambda weights: weights.update({"lm_head.weight": weights["model.embed_tokens.weight"] * factor})
    )
    model = load_causal_lm(model_dir)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == (factor == 1.0)
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight * factor)


def test_a_tied_model_without_its_embedding_is_refused_since_engines_would_draw_it(tmp_path: Path) -> None:
    model_dir = Path(save_toy_model(tmp_path / "model", tied=True))
    rewrite(model_dir, lambda weights: weights.update({"lm_head.weight": weights.pop("model.embed_tokens.weight")}))
    assert "holds lm_head.weight and not model.embed_tokens.weight, though" in load_both(model_dir)


def test_weights_without_a_place_are_named(model_dir: Path) -> None:
    rewrite(model_dir, lambda weights: weights.update({"v_head.summary.weight": torch.zeros(1, 64)}))
    assert "holds 1 tensor (v_head.summary.weight), for which" in load_both(model_dir)


def test_a_layer_more_than_the_configuration_says_is_named(model_dir: Path) -> None:
    configure(model_dir, num_hidden_layers=1)
    message = load_both(model_dir)
    assert "holds 9 tensors (model.layers.1." in message
    assert "and 6 more)" in message


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq", "model.position_ids"]
)
def test_what_follows_from_the_configuration_may_stand_in_the_files(model_dir: Path, name: str) -> None:
    rewrite(model_dir, lambda weights: weights.update({name: torch.zeros(16)}))
    load_causal_lm(model_dir)


def test_weights_of_another_shape_are_named(model_dir: Path) -> None:
    rewrite(model_dir, lambda weights: weights.update({"model.norm.weight": torch.zeros(7)}))
    assert "model.norm.weight is [7] in the files and [64] by the configuration" in load_both(model_dir)


@pytest.mark.parametrize(
    ("quantisation", "method"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "compressed-tensors", "config_groups": {}}, "compressed-tensors"),
        ({}, "an unknown method"),
    ],
)
def test_quantised_weights_are_called_that(model_dir: Path, quantisation: dict[str, Any], method: str) -> None:
    configure(model_dir, quantization_config=quantisation)
    assert f"has weights quantised with {method}, which have no gradients" in load_both(model_dir)


def test_a_classifier_is_no_policy(model_dir: Path) -> None:
    configure(model_dir, architectures=["LlamaForSequenceClassification"])
    assert "is a LlamaForSequenceClassification, which gives no probabilities" in load_both(model_dir)


@pytest.mark.parametrize(
    "architectures", [None, [], ["LlamaForCausalLM"], ["MyOwn", "LlamaForCausalLM"]], ids=lambda value: str(value)
)
def test_a_causal_model_is_one_whatever_else_is_named(model_dir: Path, architectures: list[str] | None) -> None:
    configure(model_dir, architectures=architectures)
    load_causal_lm(model_dir)


def test_nothing_is_printed(model_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rewrite(model_dir, lambda weights: weights.pop("model.norm.weight"))
    load_both(model_dir)
    assert capfd.readouterr() == ("", "")
