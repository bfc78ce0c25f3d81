"""The teachers of a run, found and compared with the policy before anything starts."""

import hashlib
import json
from pathlib import Path
from typing import Any

from cluster.commands.teacher_server import find_server
from cluster.config import RunConfig
from cluster.record.reporter import Reporter
from learner.model.source import model_fingerprint, resolve_model
from learner.types import FoundTeacher
from rollout.errors import ModelError
from rollout.module_loading import loading_modules
from rollout.prompts.chat import load_tokenizer
from rollout.prompts.demonstrations import Demonstrations
from rollout.prompts.teacher_names import TeacherNames


def demonstrations_of(config: RunConfig) -> Demonstrations | None:
    """How the policy's prompts are shown to it as its own teacher; None where it is not."""
    teacher = config.learner.teacher
    if teacher is None or teacher.policy_with is None:
        return None
    return Demonstrations(column=teacher.policy_with, template=teacher.template, few_shot=teacher.few_shot)


def teacher_names_of(config: RunConfig) -> TeacherNames | None:
    """How a row names its teacher; None where there are not several."""
    teacher = config.learner.teacher
    if teacher is None or teacher.column is None:
        return None
    return TeacherNames(column=teacher.column, names=tuple(teacher.paths))


def find_teacher(config: RunConfig, tokenizer: Any, num_embeddings: int, reporter: Reporter) -> FoundTeacher:
    """Where the teacher is, once it is sure that it can score what the policy samples; nowhere for a run without a
    teacher of its own. `tokenizer` and `num_embeddings` are the policy's.

    Errors: `ModelError`; `ConfigError` where the key of a server is not there.
    """
    teacher = config.learner.teacher
    if teacher is None:
        return FoundTeacher()
    if teacher.base_url is not None:
        reporter.phase(f"asking the teacher at {teacher.base_url}")
        return find_server(config, teacher, tokenizer)
    folders: dict[str, str] = {}
    fingerprints: list[tuple[str, str]] = []
    for name, path in sorted(teacher.models.items()):
        key = f"learner.teacher.paths.{name}" if name else "learner.teacher.path"
        folder = resolve_model(
            path,
            key=key,
            trust_remote_code=config.model.trust_remote_code,
            announce=reporter.phase,
            progress=reporter.progress,
        )
        _check_model(config, folder, f"{key} is {path!r}", tokenizer, num_embeddings)
        folders[name] = str(folder)
        fingerprints.append((name, model_fingerprint(folder)))
    if not folders:
        return FoundTeacher()
    return FoundTeacher(folders=folders, fingerprint=hashlib.sha256(json.dumps(fingerprints).encode()).hexdigest())


def _check_model(config: RunConfig, folder: Path, given: str, tokenizer: Any, num_embeddings: int) -> None:
    """`given` says in messages which teacher it is. Errors: `ModelError`."""
    trust = config.model.trust_remote_code
    check_same_tokens(tokenizer, load_tokenizer(folder, trust_remote_code=trust), given)
    with loading_modules():
        from learner.model.loading import load_skeleton, read_model_config

    found = read_model_config(folder, trust_remote_code=trust)
    embeddings: Any = load_skeleton(folder, found, trust_remote_code=trust).get_input_embeddings()
    _check_sizes(config, given, found, int(embeddings.weight.shape[0]), num_embeddings)


def check_same_tokens(ours: Any, theirs: Any, given: str) -> None:
    """Every token of the policy is the same number for the teacher: it is shown numbers, not text. The teacher may have
    more. `given` says in messages which teacher it is. Errors: `ModelError`."""
    policy, teacher = ours.get_vocab(), theirs.get_vocab()
    others = [token for token, number in policy.items() if teacher.get(token) != number]
    if others:
        first = min(others, key=lambda token: policy[token])
        is_there = f"has number {teacher[first]}" if first in teacher else "is not there"
        raise ModelError(
            f"{given}, whose tokenizer is not the policy's: {len(others)} of {len(policy)} "
            f"tokens differ, the first is {first!r}, number {policy[first]}, which {is_there} in the teacher's; "
            "take a teacher and a model of one family"
        )


def _check_sizes(config: RunConfig, given: str, found: Any, num_teacher: int, num_embeddings: int) -> None:
    """Errors: `ModelError`."""
    teacher = config.learner.teacher
    assert teacher is not None
    text = found.get_text_config()
    longest = getattr(text, "max_position_embeddings", None)
    if longest is not None and longest < config.model.max_context_tokens:
        raise ModelError(
            f"{given}, which reads {longest} tokens at most, and "
            f"model.max_context_tokens is {config.model.max_context_tokens}; lower that, or take another teacher"
        )
    if num_teacher < num_embeddings or (teacher.is_exact and num_teacher != num_embeddings):
        raise ModelError(
            f"{given}, which has embeddings for {num_teacher} tokens where the model "
            f"has {num_embeddings}; "
            + (
                f"teacher.kind `{teacher.kind}` compares them one by one: set it to `sampled`"
                if num_teacher > num_embeddings
                else "take another teacher"
            )
        )
