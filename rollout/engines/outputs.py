"""What an engine reports, as records, and the names under which it knows requests."""

import numpy as np

from rollout.engines.protocol import EngineOutput
from rollout.types import Completion, VersionSpan

Key = tuple[str, str, int]
"""(purpose, group id, attempt) of a lease."""


def to_completion(output: EngineOutput, sample_index: int, policy_version: int | None) -> Completion:
    """The engine's report as a record; tokens whose log-probability is not finite are masked and counted."""
    finite_T = np.isfinite(output.logprobs)
    spans = tuple(VersionSpan(policy_version=v, start=start, end=end) for v, start, end in output.versions)
    if not spans:
        assert policy_version is not None
        spans = (VersionSpan(policy_version=policy_version, start=0, end=len(output.token_ids)),)
    return Completion(
        sample_index=sample_index,
        token_ids=output.token_ids,
        logprobs=np.where(finite_T, output.logprobs, np.float32(0.0)),
        loss_mask=finite_T if output.finish_reason.is_trainable else np.zeros_like(finite_T),
        text=output.text,
        finish_reason=output.finish_reason,
        version_spans=spans,
        num_nonfinite_logprobs=int(np.count_nonzero(~finite_T)),
    )


def request_id_of(key: Key, sample_index: int) -> str:
    """Of a completion; a reply of an episode has its turn behind it."""
    purpose, group_id, attempt = key
    return f"{purpose}|{group_id}|{attempt}|{sample_index}"


def is_reply(request_id: str) -> bool:
    """Whether it is one of a reply: with a turn."""
    return request_id.count("|") == 4


def reply_id_of(request_id: str) -> str:
    """The request id of the completion that a reply is part of."""
    return request_id.rpartition("|")[0]


def parse_request_id(request_id: str) -> tuple[Key, int]:
    """(key of the lease, sample index) of a completion, or of a reply of an episode, that an engine has."""
    purpose, group_id, attempt, sample_index, *_ = request_id.split("|")
    return (purpose, group_id, int(attempt)), int(sample_index)
