"""The command `shoal`. Nothing heavy is imported before a command needs it: `shoal --help` answers at once.

Exit codes: 0 done, 1 failed, 2 the command or the configuration is wrong and nothing was started, 3 and 4 the doctor
found warnings and errors, 130 interrupted, 143 terminated.
"""

import argparse
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from cluster.commands.alerts import add_alert_commands, alerts_beside
from cluster.commands.dashboard import add_dashboard_commands, dashboard_beside
from cluster.commands.environments import add_environment_commands
from cluster.commands.selection import add_label_command, add_selection_commands, add_tag_command
from cluster.commands.watch import add_watch_command
from cluster.run_files import CONFIG
from rollout.errors import ConfigError, ShoalError
from rollout.module_loading import OWN_PACKAGES, loading_modules

if TYPE_CHECKING:
    from cluster.config import RunConfig

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 130, 143

EVAL_RECIPES = {"gsm8k": "gsm8k-smollm2"}
"""Short names for `shoal eval --task`: whose task and evaluation settings are meant."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code. One sentence on standard error says what went wrong."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    unknown = [word for word in rest if word.startswith("-") or "=" not in word]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if not hasattr(arguments, "command"):
        parser.print_help()
        return EXIT_USAGE
    arguments.words = [*getattr(arguments, "words", []), *rest]  # overrides may stand after an option as well
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        return _run(arguments)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _run(arguments: argparse.Namespace) -> int:
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:  # the reader (`| head`) has gone; keep Python from complaining once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except ShoalError as error:
        if arguments.debug:
            traceback.print_exc()
        code = EXIT_USAGE if isinstance(error, ConfigError) else getattr(error, "exit_code", EXIT_FAILED)
        return _fail(str(error), code)
    except Exception as error:  # noqa: BLE001 - the boundary to the user: a defect of ours, told in one sentence
        if arguments.debug:
            traceback.print_exc()
        frame = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error} ({Path(frame.filename).name}, line {frame.lineno})"
        return _fail(f"internal error: {what}; run it again with --debug for the whole trace", EXIT_FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="shoal", description="GRPO with Ray, vLLM and DeepSpeed.")
    parser.add_argument("--version", action=_VersionAction, nargs=0, help="print the version")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--debug", action="store_true", help="print the whole trace of an error")

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, parents=[shared])
        sub.set_defaults(command=command)
        return sub

    words, changes = "RECIPE [key=value ...]", "changes to it (`shoal config` lists the keys)"
    train = add("train", _train, "train a model, or continue a run")
    train.add_argument("words", nargs="*", metavar=words, help=f"a recipe (`shoal recipes`) and {changes}")
    train.add_argument("--resume", type=Path, metavar="RUN", help="continue this run from its last checkpoint")
    train.add_argument("--dashboard", action="store_true", help="serve the dashboard while it runs; prints the address")
    place = train.add_mutually_exclusive_group()
    place.add_argument("--run-dir", type=Path, metavar="DIR", help="where the run's files go")
    place.add_argument("--name", help="name of the run's folder in runs_dir")
    evaluate = add("eval", _evaluate, "evaluate a model or a run on held-out questions")
    evaluate.add_argument("model_or_run", metavar="MODEL_OR_RUN", help="a model directory, hub id or run directory")
    evaluate.add_argument("--task", metavar="RECIPE", help="whose task and settings: gsm8k, or any recipe")
    evaluate.add_argument("words", nargs="*", metavar="key=value", help="changes to the configuration (`shoal config`)")
    plan = add("plan", _plan, "show configuration, processes, memory and tokens of a run, without starting it")
    plan.add_argument("words", nargs="*", metavar=words, help=f"a recipe and {changes}")
    config = add("config", _config, "list the keys of the configuration with type, range, default and help")
    config.add_argument("key", nargs="?", metavar="KEY", help="this key and all below it, as in learner.objective")
    config.add_argument("--format", choices=("text", "markdown"), default="text", help="markdown is the whole page")
    export = add("export", _export, "write a run's final weights as a Hugging Face directory")
    export.add_argument("run", type=Path, metavar="RUN")
    export.add_argument("out", type=Path, metavar="DIR")
    doctor = add("doctor", _doctor, "say what is wrong with a run; exits with 3 for warnings and 4 for errors")
    doctor.add_argument("run", type=Path, metavar="RUN", help="a run directory; the run may be live")
    doctor.add_argument("--format", choices=("text", "json"), default="text")
    add("recipes", _recipes, "list the shipped recipes and objectives")
    add_dashboard_commands(add)
    add_selection_commands(add)
    add_label_command(add)
    add_tag_command(add)
    add_alert_commands(add)
    add_watch_command(add)
    add_environment_commands(add)
    return parser


class _VersionAction(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"shoal {version('shoal')}")
        except PackageNotFoundError:  # run from a bare copy, as Ray's working directory is
            print("shoal, not installed")
        parser.exit()


def _train(arguments: argparse.Namespace) -> int:
    from cluster.commands.resume import resume_config
    from cluster.configuration.loading import load_config
    from cluster.record.trackers import check_trackers

    recipe, overrides = _recipe_and_overrides(arguments.words)
    if arguments.resume is not None:
        if arguments.run_dir is not None or arguments.name is not None:
            raise ConfigError("--resume continues a run where it lies; leave out --run-dir and --name")
        config, run_path = resume_config(arguments.resume, recipe, overrides), arguments.resume
    else:
        config = load_config(_required(recipe), overrides)
        run_path = arguments.run_dir or _default_run_path(config, arguments.name, _required(recipe))
    check_trackers(config.trackers)
    train = _late("cluster.commands.train", "train_command")
    with alerts_beside(run_path, config.alerts), dashboard_beside(run_path) if arguments.dashboard else nullcontext():
        summary = train(config, run_path, resume=arguments.resume is not None)
    return 0 if summary.status == "finished" else EXIT_FAILED


def _evaluate(arguments: argparse.Namespace) -> int:
    config = _eval_config(arguments.model_or_run, arguments.task, arguments.words)
    for name, value in _late("cluster.commands.evaluate", "evaluate_command")(arguments.model_or_run, config).items():
        print(f"{name:<32} {value:g}")
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    from cluster.configuration.loading import dump_config, load_config
    from cluster.configuration.plan import make_plan
    from cluster.configuration.plan_text import format_plan
    from cluster.configuration.redact import redact

    recipe, overrides = _recipe_and_overrides(arguments.words)
    config = load_config(_required(recipe), overrides)
    _late("reward.worker", "validate_reward_config")(config.reward)
    plan = make_plan(config)
    print(dump_config(type(config).model_validate(redact(config.model_dump(mode="json")))))
    print(format_plan(plan))
    return 0


def _config(arguments: argparse.Namespace) -> int:
    from cluster.configuration.reference import find_keys, list_keys
    from cluster.configuration.reference_text import format_keys, format_page

    if arguments.format == "markdown":
        if arguments.key is not None:
            raise ConfigError("--format markdown is for the whole configuration; leave out the key")
        print(format_page(list_keys()), end="")
    else:
        print(format_keys(list_keys() if arguments.key is None else find_keys(arguments.key, list_keys())))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    _late("cluster.commands.export", "export_command")(arguments.run, arguments.out)
    print(arguments.out)
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    code: int = _late("cluster.dashboard.doctor.diagnose", "doctor_command")(arguments.run, arguments.format)
    return code


def _recipes(_: argparse.Namespace) -> int:
    from cluster.configuration.loading import list_objectives, list_recipes, recipe_summary

    for path in list_recipes():
        print(f"{path.stem:<22} {recipe_summary(path)}")
    print("\nObjectives for any recipe, as in `shoal train tiny objective=gspo`:")
    for path in list_objectives():
        print(f"{path.stem:<22} {recipe_summary(path)}")
    return 0


def _recipe_and_overrides(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The first word is the recipe unless it is an override: a resumed run has a recipe of its own."""
    if words and "=" not in words[0]:
        return words[0], list(words[1:])
    return None, list(words)


def _required(recipe: str | None) -> str:
    if recipe is None:
        raise ConfigError("no recipe was given; `shoal recipes` lists the shipped ones, as in: shoal train quickstart")
    return recipe


def _default_run_path(config: "RunConfig", name: str | None, recipe: str) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    key, chosen = ("--name", name) if name is not None else ("name", config.name)
    if chosen is None:
        return Path(config.runs_dir) / f"{Path(recipe).stem}-{stamp}"
    if chosen in ("", ".", "..") or "/" in chosen or "\0" in chosen:
        raise ConfigError(
            f"{key} is {chosen!r}, allowed: the name of one folder, which is made in runs_dir; --run-dir takes a path"
        )
    return Path(config.runs_dir) / chosen


def _eval_config(model_or_run: str, task: str | None, overrides: Sequence[str]) -> "RunConfig":
    """A run's own configuration, or that of the recipe `task` with the model in place of its own."""
    from cluster.commands.resume import own_config
    from cluster.configuration.loading import build_config, load_config
    from cluster.record.run_directory import RunDirectory

    is_run = (Path(model_or_run) / CONFIG).is_file()
    if task is None:
        if not is_run:
            raise ConfigError(f"{model_or_run} is no run, so it needs a task: --task gsm8k, or --task and a recipe")
        # An evaluation tells nobody: an address that the run did not write down need not be given for it.
        words = ["alerts.webhook=null", *overrides]
        return own_config(RunDirectory(Path(model_or_run)).read_config(), words, source=model_or_run)
    config = load_config(EVAL_RECIPES.get(task, task))
    values = config.model_dump(mode="json")
    if is_run:
        values["model"]["path"] = RunDirectory(Path(model_or_run)).read_config().model.path
    else:
        values["model"]["path"] = model_or_run
    return build_config(values, overrides, source=f"--task {task}")


def _late(module: str, name: str) -> Callable[..., Any]:
    """A command of a module that brings Ray, vLLM or torch with it: loaded after everything cheap was checked."""
    try:
        with loading_modules():
            command: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in OWN_PACKAGES:
            raise
        raise ShoalError(
            f"this command needs the package {package}, which is not installed here; run `make setup`, or install "
            "shoal[gpu] on a machine with GPUs"
        ) from error
    return command


def _terminate(*_: int | FrameType | None) -> None:
    raise SystemExit(EXIT_TERMINATED)


def _fail(sentence: str, code: int) -> int:
    from cluster.configuration.redact import redact_text

    print(f"shoal: {redact_text(sentence)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
