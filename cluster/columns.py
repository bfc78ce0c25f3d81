"""The columns of a table of rollouts (`rollouts/*.parquet`): a row for each completion. Imports nothing heavy.

T tokens of one completion. Text that holds a lone surrogate has it as its escape, `\\ud800`. Readers take the types
from here and read what a table of another version lacks as absent.
"""

from collections.abc import Mapping

ROLLOUT_COLUMNS: Mapping[str, str] = {
    "step": "int64",
    "group_id": "string",
    "uid": "string",
    "index": "int64",
    "epoch": "int64",
    "task": "string",
    "sample_index": "int64",
    "prompt_text": "string",
    "question": "string",
    "completion_text": "string",
    "ground_truth": "string",  # null where the data has none
    "prompt_token_ids": "list<int32>",
    "teacher_prompt_token_ids": "list<int32>",  # the prompt with a demonstration; empty without self-distillation
    "teacher": "string",  # which of several teachers the row names; empty where there are not several
    "token_ids": "list<int32>",  # [T]
    "rollout_logprobs": "list<float32>",  # [T] nats
    "policy_logprobs": "list<float32>",  # [T] nats; empty where the learner computed none, as are the next two
    "ref_logprobs": "list<float32>",  # [T] nats
    "entropies": "list<float32>",  # [T] nats
    "teacher_logprobs": "list<float32>",  # [T] nats; empty but for a teacher that is asked over HTTP
    "loss_mask": "list<bool>",  # [T]
    "advantage": "float64",  # null where not trained on; of the reward itself where the objective takes a KL off it
    "reward": "float64",  # null where not scored
    "rejected": "string",  # why the group was not trained on (`RejectReason`); empty where it was
    "steps": "string",  # JSON: [[end in tokens, reward], ...] of the steps that were scored
    "components": "string",  # JSON: name -> value before its weight
    "outcome": "string",  # `RewardOutcome`
    "detail": "string",
    "verdicts": "string",  # JSON: component -> what a judge said (docs/judges.md); null where none did
    "correct": "bool",
    "answer": "string",  # the final answer that was found in the completion, or null
    "finish_reason": "string",  # `FinishReason`
    "min_policy_version": "int64",
    "max_policy_version": "int64",
    "episode": "string",  # JSON: outcome, scores, turns [[start, end, digest, finish], ...], spoken, ...; or null
    "version_spans": "string",  # JSON: [[policy_version, start, end], ...]
    "attempt": "int64",
    "worker": "string",
    "reward_worker": "string",
    "score_s": "float64",
}
"""Name -> kind, in the order of the table."""
