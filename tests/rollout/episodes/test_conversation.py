"""Tokens of an episode, and the proof that each reply stands behind what it was sampled behind."""

import numpy as np
import pytest

from rollout.episodes.conversation import Conversation, check_spans, digest_of
from rollout.types import Completion, FinishReason, VersionSpan


def said(conversation: Conversation, *token_ids: int) -> None:
    conversation.sampled(reply(*token_ids, version=len(conversation.spans)), fed=digest_of(conversation.fed()))


def reply(*token_ids: int, version: int = 0) -> Completion:
    return Completion(
        sample_index=0,
        token_ids=np.array(token_ids, np.int32),
        logprobs=np.full(len(token_ids), -0.5, np.float32),
        loss_mask=np.ones(len(token_ids), np.bool_),
        text="",
        finish_reason=FinishReason.STOP,
        version_spans=(VersionSpan(policy_version=version, start=0, end=len(token_ids)),),
    )


def episode() -> Conversation:
    conversation = Conversation([1, 2])
    said(conversation, 5, 6, 7)
    conversation.heard([8, 9])
    said(conversation, 4)
    return conversation


def test_replies_are_trained_on_and_what_the_world_says_is_not() -> None:
    token_ids, logprobs, loss_mask = episode().arrays()
    assert token_ids.tolist() == [5, 6, 7, 8, 9, 4]
    assert logprobs.tolist() == [-0.5, -0.5, -0.5, 0.0, 0.0, -0.5]
    assert loss_mask.tolist() == [True, True, True, False, False, True]
    assert not token_ids.flags.writeable


def test_the_engine_is_fed_all_that_was_said() -> None:
    conversation = episode()
    assert conversation.fed() == (1, 2, 5, 6, 7, 8, 9, 4)
    assert [(span.start, span.end) for span in conversation.spans] == [(0, 3), (5, 6)]


def test_a_reply_to_something_else_is_refused() -> None:
    conversation = episode()
    fed = digest_of(conversation.fed())
    conversation.heard([3])
    with pytest.raises(ValueError, match="reply 3 was sampled behind other tokens"):
        conversation.sampled(reply(4), fed=fed)


def test_each_token_says_which_weights_it_is_of() -> None:
    spans = [(span.policy_version, span.start, span.end) for span in episode().version_spans]
    assert spans == [(0, 0, 5), (1, 5, 6)]


@pytest.mark.parametrize("place", range(5))
def test_a_row_that_was_altered_is_found(place: int) -> None:
    conversation = episode()
    token_ids, _, _ = conversation.arrays()
    check_spans(conversation.opening, token_ids, conversation.spans)
    altered = token_ids.copy()
    altered[place] += 1
    with pytest.raises(ValueError, match="reply 2 of the row"):
        check_spans(conversation.opening, altered, conversation.spans)


def test_an_opening_that_was_altered_is_found() -> None:
    conversation = episode()
    with pytest.raises(ValueError, match="reply 1 of the row"):
        check_spans([1, 3], conversation.arrays()[0], conversation.spans)
