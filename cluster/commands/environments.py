"""The commands `shoal play` and `shoal env check`: an environment, tried before anything is trained in it."""

import argparse
from typing import TYPE_CHECKING

from cluster.commands.dashboard import Add
from rollout.errors import ConfigError

if TYPE_CHECKING:
    from cluster.config import RunConfig


def add_environment_commands(add: Add) -> None:
    """Adds the parsers."""
    words = "RECIPE [key=value ...]"
    play = add("play", _play, "take the model's place in an episode, in the terminal")
    play.add_argument("words", nargs="+", metavar=words, help="a recipe whose task is an environment, and changes")
    play.add_argument("--seed", type=int, metavar="N", help="the world of this seed; else the first one")
    env = add("env", _env, "try an environment: play episodes without training, and report")
    env.add_argument("action", choices=("check",), help="check: play episodes with random replies and with the model")
    env.add_argument("words", nargs="+", metavar=words, help="a recipe whose task is an environment, and changes")
    env.add_argument("--episodes", type=int, default=20, metavar="N", help="how many with each kind of reply (20)")
    env.add_argument(
        "--replies",
        action="append",
        metavar="KIND",
        help="random, model, or a file with a reply in each line, said in turn; may be given again (random and model)",
    )


def _config(words: list[str]) -> "RunConfig":
    from cluster.configuration.loading import load_config

    recipe, *overrides = words
    return load_config(recipe, overrides)


def _play(arguments: argparse.Namespace) -> int:
    from cluster.trying.play import play

    return play(_config(arguments.words), seed=arguments.seed)


def _env(arguments: argparse.Namespace) -> int:
    from cluster.trying.check import check

    if arguments.episodes < 1:
        raise ConfigError(f"--episodes is {arguments.episodes}; at least one is played")
    return check(
        _config(arguments.words),
        num_episodes=arguments.episodes,
        replies=tuple(arguments.replies or ("random", "model")),
    )
