"""What is looked at before anything starts: parts of the objective that are the user's own, and once tokenizer and
prompts are there what ends a completion, and whether prompts and rewards fit each other."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.config import RunConfig
from cluster.configuration.precision import multiplies_bfloat16
from learner.algorithm.own import load_own
from learner.objective import ObjectiveConfig, OwnAdvantage
from learner.surrogate_config import OwnSurrogate
from reward.components import scores
from reward.config import RewardConfig
from rollout.config import SamplingConfig, weights_of
from rollout.errors import ConfigError
from rollout.prompts.model_template import load_template
from rollout.prompts.prompt_checks import end_token_ids, shown, turn_end
from rollout.prompts.vocabulary import token_bytes
from rollout.types import Prompt

MAX_SPELT = 16
"""Prompts whose tokens are compared with their text."""
Samplings = Mapping[str, SamplingConfig]
"""Key of the configuration -> how completions are drawn there."""


def samplings_of(config: RunConfig) -> Samplings:
    """Those of a training run."""
    return {"rollout.sampling": config.rollout.sampling, "eval.sampling": config.eval.sampling}


def check_own_parts(objective: ObjectiveConfig) -> None:
    """Raises ConfigError for an estimator or a surrogate of the user's that cannot be loaded or called. It is imported
    here, as the controller and the learner ranks do when they have started."""
    for part in (objective.advantage, objective.surrogate):
        if isinstance(part, OwnAdvantage | OwnSurrogate):
            load_own(part)


def check_stop_tokens(samplings: Samplings, tokenizer: Any) -> None:
    """Raises ConfigError for a stop token that the model does not have: it would end every engine."""
    for key, sampling in samplings.items():
        for token_id in sampling.stop_token_ids:
            if token_id >= len(tokenizer):
                raise ConfigError(
                    f"{key}.stop_token_ids: got {token_id}, allowed: tokens of the model, 0 to {len(tokenizer) - 1}"
                )


def check_step_ends(config: RewardConfig, tokenizer: Any, prompts: Sequence[Prompt]) -> None:
    """Raises ConfigError where steps are scored and the bytes of tokens, laid end to end, are not the text: then
    nobody could say which token ends a step."""
    if config.steps is None:
        return
    spelt = token_bytes(tokenizer)
    for prompt in prompts[:MAX_SPELT]:
        # A tokenizer may leave out the blank that it puts before a text.
        text = b"".join(spelt[token] for token in prompt.token_ids).decode("utf-8", "replace")
        if text.lstrip(" ") != prompt.text.lstrip(" "):
            raise ConfigError(
                f"reward.steps: the model's tokenizer does not write its tokens out one after the other ({text[:80]!r} "
                f"for {prompt.text[:80]!r}), so that the ends of steps are not known; set it to null"
            )


def check_turns(config: RunConfig, model_dir: Path) -> None:
    """Raises ModelError for a chat template with which no conversation can grow, where there are environments."""
    if config.environments:
        load_template(str(model_dir), trust_remote_code=config.model.trust_remote_code)


def ending_warnings(samplings: Samplings, tokenizer: Any, model_dir: Path) -> Iterator[str]:
    """Completions that would go on behind their end."""
    own = end_token_ids(tokenizer, model_dir)
    if not own and (endless := [key for key, s in samplings.items() if not s.stop and not s.stop_token_ids]):
        yield (
            f"the model in {model_dir} names no end token, so that every completion is as long as its max_tokens; set "
            f"{' and '.join(f'{key}.stop_token_ids' for key in endless)}, or stop"
        )
    end = turn_end(tokenizer)
    end_id = None if end is None else int(tokenizer.convert_tokens_to_ids(end))
    if own and end is not None and end_id not in own:
        behind = [key for key, s in samplings.items() if not _stops_at(s, end, end_id)]
        names = ", ".join(repr(tokenizer.convert_ids_to_tokens(i)) for i in sorted(own))
        if behind:
            yield (
                f"the chat template ends a turn with {end!r}, which does not end a completion of this model (what does "
                f"is {names}), so that completions go on behind it; set "
                f"{' and '.join(f'{key}.stop_token_ids=[{end_id}]' for key in behind)}"
            )


def stop_warnings(config: RunConfig) -> Iterator[str]:
    """An evaluation that does not stop where training does."""
    trained, evaluated = config.rollout.sampling, config.eval.sampling
    missing = [*trained.stop, *trained.stop_token_ids]
    missing = [stop for stop in missing if stop not in (*evaluated.stop, *evaluated.stop_token_ids)]
    if missing:
        yield (
            f"eval.sampling does not stop at {', '.join(map(repr, missing))} as rollout.sampling does, so that "
            "evaluated completions go on where trained ones end; give eval.sampling the same stop and stop_token_ids"
        )


def precision_warnings(config: RunConfig) -> Iterator[str]:
    """bfloat16 on a processor that has no instructions for it."""
    parts = (("rollout", config.rollout), ("learner", config.learner))
    on_cpu = {"rollout": not config.rollout.gpus_per_engine, "learner": not config.learner.gpus_per_rank}
    slow = [f"{name}.dtype" for name, part in parts if part.dtype == "bfloat16" and on_cpu[name]]
    if slow and not multiplies_bfloat16():
        yield (
            f"{' and '.join(slow)} {'is' if len(slow) == 1 else 'are'} bfloat16, and the processor of this machine has "
            "no instructions for it, so that a step takes many times as long as in float32; set "
            f"{' and '.join(slow)} to auto"
        )


def curriculum_warnings(config: RunConfig, prompts: Sequence[Prompt]) -> Iterator[str]:
    """A run that ends before its curriculum begins."""
    curriculum, weights = config.curriculum, weights_of(config.task)
    if not curriculum.enabled:
        return
    counts = Counter(prompt.task for prompt in prompts)
    asked, total = config.steps * config.rollout.prompts_per_step, sum(weights.get(name, 1.0) for name in counts)
    for name, count in counts.items():
        share = round(asked * weights.get(name, 1.0) / total)
        if 0 < share <= curriculum.after * count:
            yield (
                f"the curriculum leaves out no question of task {name}: the run asks {share} of its {count}, and "
                f"curriculum.after is {curriculum.after} passes over all of them; take more steps, or fewer questions"
            )


def prefill_warnings(config: RunConfig, prompts: Sequence[Prompt]) -> Iterator[str]:
    """A think tag that the prompt opens already, so that no completion has it, and `format` would give 0 for ever; or
    one that `format` is told is there, and is not."""
    for function in config.reward.functions:
        tag = function.params.get("think_tag", "think")
        scored = (prompt.text for prompt in prompts if scores(function, prompt.task, prompt.row))
        text = next(scored, None) if function.function == "format" and tag is not None else None
        if text is None:
            continue
        opened, told = text.rstrip().endswith(f"<{tag}>"), bool(function.params.get("prefilled", False))
        if opened and not told:
            yield (
                f"the prompts end with <{tag}>, so that completions begin inside it, and the reward function "
                f"{function.component} asks for one that opens it; set its param prefilled to true; the first prompt "
                f"is {shown(text)}"
            )
        elif told and not opened:
            yield (
                f"the param prefilled of the reward function {function.component} says that prompts end with <{tag}>, "
                f"and they do not; the first one is {shown(text)}; set it to false, or end the prompt so"
            )


def _stops_at(sampling: SamplingConfig, text: str, token_id: int | None) -> bool:
    return token_id in sampling.stop_token_ids or any(stop in text for stop in sampling.stop)
