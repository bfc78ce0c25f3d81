"""What trying an environment needs: its class in a process, the model's template, and openings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.config import RunConfig
from cluster.fleet.roles import make_vllm_parser
from learner.model.source import resolve_model
from rollout.config import EnvironmentTask, task_name, tasks_of
from rollout.episode_desk import EpisodeSetup
from rollout.episodes.chat_template import ChatTemplate
from rollout.episodes.hosted import WorldTemplate
from rollout.episodes.template_probes import Probed
from rollout.errors import ConfigError
from rollout.prompts.chat import load_tokenizer
from rollout.prompts.model_template import probed_template
from rollout.prompts.prompt_building import build_prompts
from rollout.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One environment of a configuration."""

    name: str
    task: EnvironmentTask
    worlds: WorldTemplate
    """To be closed."""
    template: ChatTemplate
    probed: tuple[Probed, ...]
    """What the probes of the template found."""
    prompts: tuple[Prompt, ...]
    """The openings of the training split."""


def model_of(config: RunConfig) -> tuple[Path, Any]:
    """Directory and tokenizer of the model. Errors: `ModelError`."""
    trust = config.model.trust_remote_code
    folder = resolve_model(config.model.path, trust_remote_code=trust, announce=print, progress=lambda *_: None)
    return folder, load_tokenizer(folder, trust_remote_code=trust)


def environments_of(config: RunConfig) -> list[EnvironmentTask]:
    """Errors: `ConfigError` where there is none."""
    tasks = [task for task in tasks_of(config.task) if isinstance(task, EnvironmentTask)]
    if not tasks:
        raise ConfigError(
            f"task.kind is {tasks_of(config.task)[0].kind!r}, and this is for environments; set it to `environment`, "
            "or take a recipe that has one, as `guess`"
        )
    return tasks


def tried(config: RunConfig, task: EnvironmentTask, model_dir: Path, tokenizer: Any) -> Tried:
    """Errors: `DataError`, `ModelError`, `WorldError`, `ConfigError`."""
    prompts = build_prompts(
        tokenizer, task, config.model, split="train", max_tokens=config.rollout.sampling.max_tokens
    ).prompts
    worlds = WorldTemplate(task.environment, task.params, start_deadline_s=task.start_deadline_s)
    try:
        template, probed = probed_template(
            str(model_dir), tools=worlds.schemas, trust_remote_code=config.model.trust_remote_code
        )
    except BaseException:
        worlds.close()
        raise
    return Tried(
        name=task_name(task), task=task, worlds=worlds, template=template, probed=tuple(probed), prompts=prompts
    )


def setup_of(config: RunConfig, world: Tried, model_dir: Path) -> EpisodeSetup:
    """What a sampler is told of it."""
    return EpisodeSetup(
        tasks={world.name: world.task},
        model_dir=str(model_dir),
        context_tokens=config.model.max_context_tokens,
        trust_remote_code=config.model.trust_remote_code,
        make_parser=make_vllm_parser,
    )
