"""The teacher of a run, found and compared with the policy before anything starts."""

from pathlib import Path
from typing import Any

from cluster.config import RunConfig
from cluster.record.reporter import Reporter
from learner.model.source import resolve_model
from learner.teacher import TeacherConfig
from rollout.errors import ModelError
from rollout.module_loading import loading_modules
from rollout.prompts.chat import load_tokenizer
from rollout.prompts.demonstrations import Demonstrations


def demonstrations_of(config: RunConfig) -> Demonstrations | None:
    """How the policy's prompts are shown to it as its own teacher; None where it is not."""
    teacher = config.learner.teacher
    if teacher is None or teacher.policy_with is None:
        return None
    return Demonstrations(column=teacher.policy_with, template=teacher.template)


def find_teacher(config: RunConfig, tokenizer: Any, num_embeddings: int, reporter: Reporter) -> Path | None:
    """The directory of the teacher, once it is sure that it can score what the policy samples; None for a run without a
    teacher of its own. `tokenizer` and `num_embeddings` are the policy's.

    Errors: `ModelError`.
    """
    teacher = config.learner.teacher
    if teacher is None or teacher.path is None:
        return None
    trust = config.model.trust_remote_code
    folder = resolve_model(
        teacher.path,
        key="learner.teacher.path",
        trust_remote_code=trust,
        announce=reporter.phase,
        progress=reporter.progress,
    )
    check_same_tokens(tokenizer, load_tokenizer(folder, trust_remote_code=trust), teacher.path)
    with loading_modules():
        from learner.model.loading import load_skeleton, read_model_config

    found = read_model_config(folder, trust_remote_code=trust)
    embeddings: Any = load_skeleton(folder, found, trust_remote_code=trust).get_input_embeddings()
    _check_sizes(config, teacher, found, int(embeddings.weight.shape[0]), num_embeddings)
    return folder


def check_same_tokens(ours: Any, theirs: Any, path: str) -> None:
    """Every token of the policy is the same number for the teacher: it is shown numbers, not text. The teacher may have
    more. Errors: `ModelError`."""
    policy, teacher = ours.get_vocab(), theirs.get_vocab()
    others = [token for token, number in policy.items() if teacher.get(token) != number]
    if others:
        first = min(others, key=lambda token: policy[token])
        is_there = f"has number {teacher[first]}" if first in teacher else "is not there"
        raise ModelError(
            f"learner.teacher.path is {path!r}, whose tokenizer is not the policy's: {len(others)} of {len(policy)} "
            f"tokens differ, the first is {first!r}, number {policy[first]}, which {is_there} in the teacher's; "
            "take a teacher and a model of one family"
        )


def _check_sizes(config: RunConfig, teacher: TeacherConfig, found: Any, num_teacher: int, num_embeddings: int) -> None:
    """Errors: `ModelError`."""
    text = found.get_text_config()
    longest = getattr(text, "max_position_embeddings", None)
    if longest is not None and longest < config.model.max_context_tokens:
        raise ModelError(
            f"learner.teacher.path is {teacher.path!r}, which reads {longest} tokens at most, and "
            f"model.max_context_tokens is {config.model.max_context_tokens}; lower that, or take another teacher"
        )
    if num_teacher < num_embeddings or (teacher.is_exact and num_teacher != num_embeddings):
        raise ModelError(
            f"learner.teacher.path is {teacher.path!r}, which has embeddings for {num_teacher} tokens where the model "
            f"has {num_embeddings}; "
            + (
                f"teacher.kind `{teacher.kind}` compares them one by one: set it to `sampled`"
                if num_teacher > num_embeddings
                else "take another teacher"
            )
        )
