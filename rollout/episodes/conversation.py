"""The tokens of an episode. A conversation only grows: what the model sampled, and behind it what the world said.

What was said before is never rendered or tokenised again, so that every token that is trained on was sampled in exactly
the context that it is trained in; `Conversation.spans` has what proves it.
"""

from collections.abc import Sequence

import numpy as np
import xxhash

from rollout.episode_types import TurnSpan
from rollout.types import Completion, Logprobs, LossMask, TokenIds, VersionSpan, read_only


def digest_of(token_ids: Sequence[int] | TokenIds) -> str:
    """Of tokens in their order."""
    return xxhash.xxh3_64_hexdigest(np.ascontiguousarray(token_ids, dtype="<i4").tobytes())


class Conversation:
    """Opening, then turns of model and world."""

    def __init__(self, opening: Sequence[int]) -> None:
        assert opening, "a model cannot begin without a token"
        self.opening = tuple(opening)
        self._token_ids: list[int] = []
        self._logprobs: list[float] = []
        self._loss_mask: list[bool] = []
        self._spans: list[TurnSpan] = []
        self._versions: list[VersionSpan] = []
        self.num_nonfinite_logprobs = 0

    @property
    def num_tokens(self) -> int:
        """Behind the opening."""
        return len(self._token_ids)

    @property
    def spans(self) -> tuple[TurnSpan, ...]:
        """The model's replies so far."""
        return tuple(self._spans)

    def fed(self) -> tuple[int, ...]:
        """What the engine reads for the next reply."""
        return (*self.opening, *self._token_ids)

    @property
    def version_spans(self) -> tuple[VersionSpan, ...]:
        """Which weights sampled what; tokens of the world count as those of the reply before them."""
        return tuple(self._versions)

    def sampled(self, reply: Completion, *, fed: str) -> None:
        """A reply; `fed` is the digest of what it was sampled behind. Raises ValueError where that is another context
        than this one."""
        if fed != digest_of(self.fed()):
            raise ValueError(f"reply {len(self._spans) + 1} was sampled behind other tokens than it stands behind")
        start = len(self._token_ids)
        self._token_ids += reply.token_ids.tolist()
        self._logprobs += reply.logprobs.tolist()
        self._loss_mask += reply.loss_mask.tolist()
        self._cover(start)
        self._versions += [
            VersionSpan(policy_version=span.policy_version, start=start + span.start, end=start + span.end)
            for span in reply.version_spans
        ]
        self.num_nonfinite_logprobs += reply.num_nonfinite_logprobs
        finish = reply.finish_reason.value
        self._spans.append(TurnSpan(start=start, end=len(self._token_ids), fed=fed, finish=finish))

    def heard(self, token_ids: Sequence[int]) -> None:
        """What the world said, as `ChatTemplate.heard` gives it: read by the model, and not trained on."""
        self._token_ids += token_ids
        self._logprobs += [0.0] * len(token_ids)
        self._loss_mask += [False] * len(token_ids)
        self._cover(len(self._token_ids))

    def _cover(self, end: int) -> None:
        """Spans of versions cover all tokens: what the world said belongs to the weights that read it last."""
        if self._versions and self._versions[-1].end < end:
            last = self._versions[-1]
            self._versions[-1] = VersionSpan(policy_version=last.policy_version, start=last.start, end=end)

    def arrays(self) -> tuple[TokenIds, Logprobs, LossMask]:
        """[T] each, read-only: those of a completion behind the prompt `opening`."""
        return (
            read_only(self._token_ids, np.int32),
            read_only(self._logprobs, np.float32),
            read_only(self._loss_mask, np.bool_),
        )


def check_spans(opening: Sequence[int], token_ids: TokenIds, spans: Sequence[TurnSpan]) -> None:
    """Raises ValueError where a reply of a row stands behind other tokens than the engine was fed for it."""
    row = np.concatenate([np.asarray(opening, np.int32), token_ids])
    for number, span in enumerate(spans, start=1):
        if digest_of(row[: len(opening) + span.start]) != span.fed:
            raise ValueError(f"reply {number} of the row stands behind other tokens than it was sampled behind")
