"""A scoring model as a reward, with a tiny randomly initialised classifier that is saved and loaded for real."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

from reward.config import RewardModelConfig
from reward.models.classifier import RewardModelScorer
from rollout.errors import ModelError
from tests.reward.samples import item

PAIRS = [("what is 1 + 1 ?", "2"), ("hi", "hello there you"), ("a b c d e f g h", "z"), ("hi", "no")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model"), num_labels=1)


def save(path: Path, num_labels: int, chat_template: str | None = None) -> Path:
    """A toy model whose words are single characters."""
    characters = ["<unk>", "<s>", "</s>", *map(chr, range(32, 127))]
    backend = Tokenizer(models.WordLevel({character: i for i, character in enumerate(characters)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"num_labels": num_labels}
    config = LlamaConfig(
        vocab_size=len(characters),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.5,
        **sizes,
    )
    LlamaForSequenceClassification(config).save_pretrained(path)
    return path


def loaded(path: Path, **fields: int) -> RewardModelScorer:
    return RewardModelScorer(RewardModelConfig(path=str(path), **fields))


def test_scores_are_the_models_logits_whatever_the_batch(folder: Path) -> None:
    one_by_one = loaded(folder, batch_size=1).score_pairs(PAIRS)
    assert loaded(folder, batch_size=4).score_pairs(PAIRS) == pytest.approx(one_by_one, abs=1e-5)
    assert loaded(folder, batch_size=3).score_pairs(PAIRS) == pytest.approx(one_by_one, abs=1e-5)
    model = LlamaForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    with torch.no_grad():
        by_hand = [
            model.score(model.model(**tokenizer(a + b, return_tensors="pt")).last_hidden_state[:, -1]).item()
            for a, b in PAIRS
        ]
    assert one_by_one == pytest.approx(by_hand, abs=1e-5)
    assert len({round(score, 4) for score in one_by_one}) == 4
    assert loaded(folder).score([]) == []
    seen = item("2", question="what is 1 + 1 ?")
    assert loaded(folder).score([seen]) == pytest.approx(one_by_one[:1], abs=1e-5)


def test_long_texts_are_cut_on_the_left(folder: Path) -> None:
    limited = loaded(folder, max_tokens=5)
    # Five characters are left of each: the same ones.
    first, second, other = limited.score_pairs([("a long question", "12345"), ("x", "12345"), ("x", "12346")])
    assert first == pytest.approx(second, abs=1e-6)
    assert abs(first - other) > 1e-4


def test_the_chat_template_is_used_where_there_is_one(tmp_path: Path) -> None:
    template = "{% for turn in messages %}[{{ turn.role[0] }}]{{ turn.content }}{% endfor %}"
    with_template = loaded(save(tmp_path / "chat", 1, template)).score_pairs([("hi", "yo")])
    plain = loaded(save(tmp_path / "plain", 1)).score_pairs([("[u]hi", "[a]yo")])
    assert with_template == pytest.approx(plain, abs=1e-6)


def test_models_that_cannot_score_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has 2 outputs; a reward is one number"):
        loaded(save(tmp_path / "two", num_labels=2))
    with pytest.raises(ModelError, match="cannot be loaded"):
        loaded(tmp_path / "absent")
