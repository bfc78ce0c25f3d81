"""All that a run reads before it starts anything: models and prompts, and what is wrong with them."""

import time
from dataclasses import dataclass
from pathlib import Path

from cluster.commands.model_check import check_model, check_reward_model, check_tokens
from cluster.commands.run_prompts import read_eval_prompts, read_train_prompts
from cluster.commands.start_checks import (
    check_step_ends,
    check_stop_tokens,
    check_turns,
    curriculum_warnings,
    ending_warnings,
    precision_warnings,
    prefill_warnings,
    samplings_of,
    stop_warnings,
)
from cluster.commands.teacher_check import find_teacher
from cluster.config import RunConfig
from cluster.configuration.loading import config_fingerprint
from cluster.record.reporter import Reporter
from cluster.weights.run_state import Fingerprints
from learner.model.source import model_fingerprint, resolve_model, tokenizer_fingerprint
from learner.types import FoundTeacher
from reward.components import check_components_are_used
from rollout.config import tasks_of
from rollout.prompts.chat import load_tokenizer
from rollout.prompts.prompt_set import PromptSet
from rollout.prompts.stream import eval_prompts
from rollout.prompts.vocabulary import token_pieces
from rollout.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a run reads before it starts anything."""

    model_dir: Path
    teacher: FoundTeacher
    train: PromptSet
    eval_prompts: tuple[Prompt, ...]
    fingerprints: Fingerprints
    vocabulary: list[str]
    """[V] the text of each token."""
    warnings: tuple[str, ...]
    """What a person was told of prompts and endings before anything started."""


def read_inputs(config: RunConfig, reporter: Reporter) -> Inputs:
    """Finds the model and reads the prompts; nothing is started yet, so every mistake in them costs nothing.

    Errors: `ModelError`, `DataError`; `ConfigError` for a reward that no row is for.
    """
    model = config.model
    started_s = time.monotonic()
    model_dir = resolve_model(
        model.path,
        trust_remote_code=model.trust_remote_code,
        announce=reporter.phase,
        progress=reporter.progress,
    )
    if time.monotonic() - started_s > 1.0:
        reporter.phase(f"model {model.path} is in {model_dir}")
    num_embeddings = check_model(config, model_dir)
    check_reward_model(config)
    tokenizer = load_tokenizer(model_dir, trust_remote_code=model.trust_remote_code)
    check_stop_tokens(samplings_of(config), tokenizer)
    check_turns(config, model_dir)
    teacher = find_teacher(config, tokenizer, num_embeddings, reporter)
    train = read_train_prompts(config, tokenizer, reporter)
    evaluation = config.eval
    is_evaluated = evaluation.at_start or evaluation.at_end or evaluation.every > 0
    warnings = [*train.report.warnings, *ending_warnings(samplings_of(config), tokenizer, model_dir)]
    warnings += [*stop_warnings(config), *precision_warnings(config), *prefill_warnings(config, train.prompts)]
    warnings += curriculum_warnings(config, train.prompts)
    questions: tuple[Prompt, ...] = ()
    if is_evaluated:
        held_out = read_eval_prompts(config, tokenizer)
        questions = eval_prompts(held_out, evaluation.num_prompts)
        if config.eval_task is not None or len(tasks_of(config.task)) > 1:  # else said of the training prompts
            warnings += [text for text in held_out.report.warnings if text not in warnings]
    for text in warnings:
        reporter.warn(text)
    check_components_are_used(config.reward, (*train.prompts, *questions))
    check_tokens(tokenizer, (*train.prompts, *questions), model_dir, num_embeddings)
    check_step_ends(config.reward, tokenizer, train.prompts)
    return Inputs(
        model_dir=model_dir,
        teacher=teacher,
        train=train,
        eval_prompts=questions,
        fingerprints=Fingerprints(
            model=model_fingerprint(model_dir),
            tokenizer=tokenizer_fingerprint(model_dir),
            data=train.fingerprint,
            group_size=config.rollout.group_size,
            config=config_fingerprint(config),
            teacher=teacher.fingerprint,
        ),
        vocabulary=token_pieces(tokenizer),
        warnings=tuple(warnings),
    )
