"""Whether the model can be what a run wants of it, asked of its files before anything starts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.config import RunConfig
from rollout.engines.limits import check_engine_limits
from rollout.errors import ModelError
from rollout.module_loading import loading_modules
from rollout.types import Prompt


def check_model(config: RunConfig, model_dir: Path) -> int:
    """The number of tokens that the model has embeddings for, once its files are sure to be whole, and of a model that
    the engines can sample from and the learner can compute.

    Errors: `ModelError`.
    """
    with loading_modules():
        from learner.model.loading import load_skeleton, read_model_config

    trust = config.model.trust_remote_code
    found = read_model_config(model_dir, trust_remote_code=trust)
    check_engine_limits(
        found,
        model_dir,
        max_context_tokens=config.model.max_context_tokens,
        on_gpu=config.rollout.gpus_per_engine > 0,
        is_exact=config.rollout.dtype == config.learner.dtype == "float32"
        and None in (config.weight_sync.canary_max_error, config.weight_sync.canary_mean_error),
    )
    embeddings: Any = load_skeleton(model_dir, found, trust_remote_code=trust).get_input_embeddings()
    return int(embeddings.weight.shape[0])


def check_tokens(tokenizer: Any, prompts: Sequence[Prompt], model_dir: Path, num_embeddings: int) -> None:
    """Every token that the model is shown has an embedding, and the one that ends its texts can be sampled: a tokenizer
    with more tokens than the model is no fault as long as they are not used.

    Errors: `ModelError`.
    """
    used = {
        max(*prompt.token_ids, *prompt.teacher_token_ids, 0): f"the prompt of {prompt.question[:40]!r}"
        for prompt in prompts
    }
    if tokenizer.eos_token_id is not None:
        used |= {tokenizer.eos_token_id: "the end of a text"}
    worst = max(used, default=0)
    if worst >= num_embeddings:
        piece = tokenizer.convert_ids_to_tokens(worst)
        raise ModelError(
            f"the tokenizer in {model_dir} has {len(tokenizer)} tokens and the model embeddings for {num_embeddings}: "
            f"token {worst} ({piece!r}), for {used[worst]}, has none; take the tokenizer that belongs to the model, or "
            "resize the model's embeddings"
        )


def check_reward_model(config: RunConfig) -> None:
    """A folder that is missing is told before any process starts; a hub id is looked up by the actor that loads it.

    Errors: `ModelError`.
    """
    reward_model = config.reward.reward_model
    if reward_model is None or not (reward_model.path.startswith(("/", ".")) or Path(reward_model.path).exists()):
        return
    if not (Path(reward_model.path) / "config.json").is_file():
        raise ModelError(
            f"reward.reward_model.path is {reward_model.path!r}, which is no model directory (it has no config.json); "
            "name the folder of a sequence classifier, or a hub id"
        )
