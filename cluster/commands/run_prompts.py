"""The prompts of a run: of one task or several, read, scored by the run's reward, and apart from what is held out."""

from typing import Any

from cluster.commands.scored_rows import scored_prompts
from cluster.commands.teacher_check import demonstrations_of, teacher_names_of
from cluster.config import RunConfig
from cluster.record.reporter import Reporter
from rollout.config import TaskConfig, task_name, tasks_of, weights_of
from rollout.errors import DataError
from rollout.prompts.prompt_building import build_prompts, joined
from rollout.prompts.prompt_set import PromptSet
from rollout.prompts.sources import has_eval_source
from rollout.prompts.tasks import held_out_questions


def read_train_prompts(config: RunConfig, tokenizer: Any, reporter: Reporter) -> PromptSet:
    """The prompts of all tasks that are trained on. No question that could be evaluated is among them, not even when it
    comes from another task."""
    tasks = tasks_of(config.task)
    # What a task holds out of its own it leaves out by itself, as `load_rows` says.
    others = [*(tasks_of(config.eval_task) if config.eval_task is not None else ()), *(tasks if len(tasks) > 1 else ())]
    held_out = held_out_questions(others)
    sets = []
    for task in tasks:
        if task_name(task) not in weights_of(config.task):
            continue
        prompts = build_prompts(
            tokenizer,
            task,
            config.model,
            split="train",
            max_tokens=config.rollout.sampling.max_tokens,
            held_out=held_out,
            demonstrations=demonstrations_of(config),
            teachers=teacher_names_of(config),
        )
        sets.append(scored_prompts(config.reward, task, prompts))
        reporter.phase(str(sets[-1].report))
    return joined(sets)


def read_eval_prompts(config: RunConfig, tokenizer: Any) -> PromptSet:
    """All held-out questions. Errors: `DataError` when there are none."""
    tasks = tasks_of(config.eval_task or config.task)
    weights = weights_of(config.task)
    for task in tasks if config.eval_task is None else ():
        if not weights.get(task_name(task)) and not (task.eval_fraction > 0 or has_eval_source(task)):
            raise DataError(
                f"task {task_name(task)} has the weight 0, so that it is not trained on, and neither an eval_fraction "
                "nor rows of its own to evaluate; give it one of them, or leave the task out"
            )
    # A task among several may be trained on alone.
    evaluated = [task for task in tasks if task.eval_fraction > 0 or has_eval_source(task)] or tasks
    return joined([_held_out(config, task, tokenizer) for task in evaluated])


def _held_out(config: RunConfig, task: TaskConfig, tokenizer: Any) -> PromptSet:
    held_out = build_prompts(tokenizer, task, config.model, split="eval", max_tokens=config.eval.sampling.max_tokens)
    held_out = scored_prompts(config.reward, task, held_out)
    if not held_out.prompts:
        raise DataError(
            f"task {held_out.report.task} has no held-out question that fits; raise task.eval_fraction or "
            "model.max_context_tokens, or turn evaluation off (eval.at_start=false eval.at_end=false)"
        )
    return held_out
