"""Recipe and overrides -> RunConfig, and back to YAML.

A recipe is a YAML file of RunConfig's keys; `base: NAME` starts from another one, and `objective: NAME` takes the
objective of a paper in place of the base's: so does the override `objective=NAME`. Overrides are `dotted.key=value`.
Everything is checked before anything is started: each problem is one line with the key's path, what was got and what
is allowed.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from cluster.config import RunConfig
from cluster.configuration.overrides import apply_overrides, merge
from cluster.configuration.precision import with_precision
from cluster.configuration.problems import describe_problems
from cluster.configuration.recipe_yaml import dump_yaml, parse_yaml
from cluster.configuration.renamed import renamed_key, upgraded
from cluster.configuration.schema import Place, with_default_kinds
from rollout.config import Config
from rollout.errors import ConfigError

RECIPES_DIR = Path(__file__).parents[1] / "recipes"
OBJECTIVES_DIR = RECIPES_DIR / "objectives"
_OBJECTIVE = "objective="

_ConfigT = TypeVar("_ConfigT", bound=Config)


def load_config(name_or_path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of a recipe (`quickstart`, `my/recipe.yaml`) with overrides such as `learner.lr=1e-5`.

    Raises ConfigError.
    """
    values = _read_with_bases(find_recipe(name_or_path), ())
    named = [override.removeprefix(_OBJECTIVE) for override in overrides if override.startswith(_OBJECTIVE)]
    if len(named) > 1:
        raise ConfigError(f"objective: got {' and '.join(named)}, allowed: one, for each takes the place of the other")
    if named:
        values = _with_objective(values, named[0])
    others = [override for override in overrides if not override.startswith(_OBJECTIVE)]
    return build_config(values, others, source=str(name_or_path))


def build_config(values: Mapping[str, Any], overrides: Sequence[str] = (), *, source: str) -> RunConfig:
    """The configuration of plain values with overrides. `source` names them in errors. Raises ConfigError."""
    config = build(RunConfig, values, overrides, source=source)
    try:
        return with_precision(config)
    except ValidationError as error:
        raise ConfigError(_with_source(source, describe_problems(RunConfig, error))) from error


def build(model: type[_ConfigT], values: Mapping[str, Any], overrides: Sequence[str] = (), *, source: str) -> _ConfigT:
    """As `build_config`, for any configuration class."""
    merged = with_default_kinds([Place(annotation=model)], apply_overrides(model, values, overrides))
    unfit = [*_unfit(merged, ""), *([renamed] if (renamed := renamed_key(merged)) else [])]
    if unfit:
        raise ConfigError(_with_source(source, "\n".join(unfit)))
    try:
        # Strict, and from JSON: the string "3" is no number and true is no 1, while a list may become a tuple.
        return model.model_validate_json(json.dumps(merged), strict=True)
    except ValidationError as error:
        raise ConfigError(_with_source(source, describe_problems(model, error))) from error


def dump_config(config: RunConfig) -> str:
    """All values, defaults included, as YAML: building it again gives an equal configuration."""
    return dump_yaml(config.model_dump(mode="json"))


def parse_config(text: str, *, source: str) -> RunConfig:
    """The inverse of `dump_config`, also for one that was written before a key was renamed. Raises ConfigError."""
    return build_config(upgraded(_require_mapping(parse_yaml(text, source), source)), source=source)


def config_fingerprint(config: RunConfig) -> str:
    """16 hex digits that differ when any value differs; independent of the order of keys."""
    canonical = json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def changed_keys(old: RunConfig, new: RunConfig) -> tuple[str, ...]:
    """Dotted keys whose values differ, sorted; a key that only one side has counts as changed."""
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    missing = object()
    return tuple(sorted(k for k in before.keys() | after.keys() if before.get(k, missing) != after.get(k, missing)))


def find_recipe(name_or_path: str) -> Path:
    """The file of a recipe: a path if it ends in .yaml or .yml or has a folder, else a shipped name."""
    if name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path:
        return Path(name_or_path)
    path = RECIPES_DIR / f"{name_or_path}.yaml"
    if not path.is_file():
        names = [recipe.stem for recipe in list_recipes()]
        raise ConfigError(
            f"there is no recipe named {name_or_path!r}; shipped ones are {', '.join(names)}; a file needs its "
            "ending, as in my_recipe.yaml"
        )
    return path


def list_recipes() -> list[Path]:
    """Files of the shipped recipes, sorted by name."""
    return sorted(RECIPES_DIR.glob("*.yaml"))


def list_objectives() -> list[Path]:
    """Files of the objectives that a recipe may take, sorted by name."""
    return sorted(OBJECTIVES_DIR.glob("*.yaml"))


def recipe_summary(path: Path) -> str:
    """The recipe's first line, which is a comment that says what it is for."""
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("#").strip()


def _read_with_bases(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The values of a recipe file merged over those of its `base`, and so on."""
    if path.resolve() in seen:
        chain = " -> ".join(recipe.name for recipe in (*seen, path))
        raise ConfigError(f"{path}: `base` leads back to where it began: {chain}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read the recipe {path}: {reason}; `shoal recipes` lists the shipped ones") from error
    values = _require_mapping(parse_yaml(text, str(path)), str(path))
    base, objective = values.pop("base", None), values.pop("objective", None)
    if objective is not None and not isinstance(objective, str):
        raise ConfigError(f"{path}: objective: got {objective!r}, allowed: one of {_objective_names()}")
    if base is None:
        below = {} if objective is None else _with_objective({}, objective, source=f"{path}: ")
        return merge(RunConfig, below, values)
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base: got {base!r}, allowed: the name or path of one recipe")
    base_path = find_recipe(base)
    if base_path.parent != RECIPES_DIR and not base_path.is_absolute():
        base_path = path.parent / base_path  # a path in a file is meant from that file, not from the shell's folder
    below = _read_with_bases(base_path, (*seen, path.resolve()))
    if objective is not None:
        below = _with_objective(below, objective, source=f"{path}: ")
    return merge(RunConfig, below, values)


def _with_objective(values: Mapping[str, Any], name: str, *, source: str = "") -> dict[str, Any]:
    """`values` with the objective of a paper: `learner.objective` is its whole, and the other keys of its file are laid
    over theirs; scores of steps go with the objective that needed them. `source` begins an error's sentence. Raises
    ConfigError for a name that is none."""
    path = OBJECTIVES_DIR / f"{name}.yaml"
    if path not in list_objectives():
        hint = " (GRPO as in its paper is deepseekmath)" if name == "grpo" else ""
        raise ConfigError(f"{source}objective: got {name!r}, allowed: one of {_objective_names()}{hint}")
    over = _require_mapping(parse_yaml(path.read_text(encoding="utf-8"), str(path)), str(path))
    learner = values.get("learner")
    if isinstance(learner, Mapping):
        values = {**values, "learner": {key: value for key, value in learner.items() if key != "objective"}}
    reward = values.get("reward")
    if isinstance(reward, Mapping):
        values = {**values, "reward": {key: value for key, value in reward.items() if key != "steps"}}
    return merge(RunConfig, values, over)


def _objective_names() -> str:
    return ", ".join(path.stem for path in list_objectives())


def _require_mapping(values: Any, source: str) -> dict[str, Any]:
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{source}: got {type(values).__name__}, allowed: a mapping of configuration keys to values")
    return values


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping) or (prefix and not value):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, child in value.items():
        flat |= _flat(child, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _unfit(value: Any, path: str) -> Iterator[str]:
    """Sentences on values that JSON has no form for."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{path}: got {value}, allowed: a finite number"
    elif isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        yield f"{path}: got {value!r}, allowed: text in UTF-8"
    elif isinstance(value, Mapping):
        for key, child in value.items():
            yield from _unfit(child, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _unfit(child, f"{path}.{index}")


def _with_source(source: str, problems: str) -> str:
    return "\n".join(f"{source}: {line}" for line in problems.splitlines())
