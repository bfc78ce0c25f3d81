"""A scoring model as a reward: any sequence classifier with one output, on a CPU or an accelerator."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from reward.config import RewardModelConfig
from reward.types import RewardInput
from rollout.errors import ModelError


class RewardModelScorer:
    """Scores pairs of prompt and completion with the model's one logit. Not thread-safe.

    Raises:
        ModelError: the model cannot be loaded, or has another number of outputs than one.
    """

    def __init__(self, config: RewardModelConfig, device: str | None = None) -> None:
        self._config = config
        self.device = torch.device(device or ("cuda" if config.gpus > 0 else "cpu"))
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(config.path)
            self._model = AutoModelForSequenceClassification.from_pretrained(config.path)
        except (OSError, ValueError) as error:
            raise ModelError(f"reward model {config.path!r} cannot be loaded: {error}") from error
        num_outputs = self._model.config.num_labels
        if num_outputs != 1:
            raise ModelError(
                f"reward model {config.path!r} has {num_outputs} outputs; a reward is one number, so use a model with "
                "num_labels 1"
            )
        # From here on sequences are cut at their beginning: the completion, which is judged, stands at the end.
        self._tokenizer.truncation_side = "left"
        self._set_padding()
        self._model.to(self.device).eval()

    def _set_padding(self) -> None:
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token or self._tokenizer.unk_token
        if self._tokenizer.pad_token is None:
            raise ModelError(f"reward model {self._config.path!r} has a tokenizer without a padding or end token")
        # A decoder's classifier reads the last token that is not padding, which it finds by this id.
        self._model.config.pad_token_id = self._tokenizer.pad_token_id

    def score(self, items: Sequence[RewardInput]) -> list[float]:
        """One score for each completion, in order."""
        return self.score_pairs([(item.question, item.completion) for item in items])

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """One score for each (question, completion), in order; whatever the batch, within rounding."""
        scores = [0.0] * len(pairs)
        texts = [self.text(question, completion) for question, completion in pairs]
        # Alike lengths together, so that little of a batch is padding.
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        for start in range(0, len(order), self._config.batch_size):
            chosen = order[start : start + self._config.batch_size]
            for index, score in zip(chosen, self.score_texts([texts[index] for index in chosen]), strict=True):
                scores[index] = score
        return scores

    def text(self, question: str, completion: str) -> str:
        """What the model reads of a question and its completion."""
        if self._tokenizer.chat_template is None:
            return question + completion
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": completion}]
        return str(self._tokenizer.apply_chat_template(turns, tokenize=False))

    @torch.inference_mode()
    def score_texts(self, texts: Sequence[str]) -> list[float]:
        """One score for each text, computed together."""
        inputs: dict[str, Any] = self._tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self._config.max_tokens,
            return_tensors="pt",
            # A chat template has written the special tokens already.
            add_special_tokens=self._tokenizer.chat_template is None,
        ).to(self.device)
        logits_B1 = self._model(**inputs).logits
        return [float(score) for score in logits_B1[:, 0].float()]
