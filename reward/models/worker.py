"""A reward model that many ask at once: one thread computes, in batches of what waits, whichever group it is of.

score(group) --texts--> queue --oldest first, alike lengths together--> batch --> logits --> score(group) returns
"""

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from reward.config import RewardModelConfig
from reward.errors import RewardError
from reward.models.classifier import RewardModelScorer
from reward.types import RewardInput

BATCHES_AHEAD = 4
"""Batches' worth of waiting texts from which one is chosen: more make batches more even, and cost the order."""


@dataclass(slots=True, eq=False)
class _Request:
    texts: list[str]
    scores: list[float]
    done: "Future[list[float]]" = field(default_factory=Future)
    num_left: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Text:
    request: _Request
    index: int

    @property
    def text(self) -> str:
        return self.request.texts[self.index]


class RewardModelWorker:
    """Scores completions with a `RewardModelScorer`; any number of threads may ask. Without `across_groups` each call
    is computed alone, so that a score does not depend, in its last bits, on who else asked.

    Errors: `ModelError` where the model cannot be used.
    """

    def __init__(self, config: RewardModelConfig, *, across_groups: bool = True) -> None:
        self._model = RewardModelScorer(config)
        self._batch_size = config.batch_size
        self._across_groups = across_groups
        self._waiting: deque[_Text] = deque()
        self._changed = threading.Condition()
        self._num_batches = 0
        self._is_busy = self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="reward-model", daemon=True)
        self._thread.start()

    def score(self, items: Sequence[RewardInput]) -> list[float]:
        """One score for each completion, in order. Blocks. Errors: `RewardError` once it is closed; the model's own."""
        texts = [self._model.text(item.question, item.completion) for item in items]
        request = _Request(texts=texts, scores=[0.0] * len(texts), num_left=len(texts))
        if not texts:
            return []
        with self._changed:
            if self._is_closed:
                raise RewardError("the reward model is closed")
            self._waiting.extend(_Text(request, index) for index in range(len(texts)))
            self._changed.notify_all()
        return request.done.result()

    def num_batches(self) -> int:
        """Batches done since the start: who waits sees by it that the model gets on."""
        return self._num_batches

    def probe(self) -> None:
        """Returns from between two batches, or at once where nothing is computed."""
        with self._changed:
            before = self._num_batches
            self._changed.wait_for(lambda: not self._is_busy or self._num_batches > before or self._is_closed)

    def close(self) -> None:
        """Fails what waits. Idempotent."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(10.0)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if self._is_closed:
                    self._fail([*self._waiting], RewardError("the reward model was closed"))
                    return
                batch = self._take_batch()
                self._is_busy = True
            self._compute(batch)
            with self._changed:
                self._num_batches += 1

    def _take_batch(self) -> list[_Text]:
        """Texts of alike lengths from those that wait longest, the oldest among them."""
        oldest = self._waiting[0]
        window = [
            text
            for text in list(self._waiting)[: BATCHES_AHEAD * self._batch_size if self._across_groups else None]
            if self._across_groups or text.request is oldest.request
        ]
        window.sort(key=lambda text: len(text.text))
        start = min(window.index(oldest), max(0, len(window) - self._batch_size)) if self._across_groups else 0
        chosen = window[start : start + self._batch_size]
        taken = set(map(id, chosen))
        self._waiting = deque(text for text in self._waiting if id(text) not in taken)
        return chosen

    def _compute(self, batch: list[_Text]) -> None:
        try:
            scores = self._model.score_texts([text.text for text in batch])
        except Exception as error:  # noqa: BLE001 - thread boundary: whoever waits gets the error
            self._fail(batch, error)
            return
        for text, score in zip(batch, scores, strict=True):
            request = text.request
            request.scores[text.index] = score
            request.num_left -= 1
            if request.num_left == 0 and not request.done.done():
                request.done.set_result(request.scores)

    def _fail(self, texts: Sequence[_Text], error: Exception) -> None:
        for request in {id(text.request): text.request for text in texts}.values():
            if not request.done.done():
                request.done.set_exception(error)
