"""`shoal eval`: an evaluation alone, of a model or of a run's newest checkpoint, without a learner."""

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.commands.export import export_command
from cluster.commands.model_check import check_model, check_tokens
from cluster.commands.run_prompts import read_eval_prompts
from cluster.commands.start_checks import check_stop_tokens, ending_warnings
from cluster.config import RunConfig
from cluster.fleet.actors import launch_fleet
from cluster.fleet.placement import plan_bundles, total_resources
from cluster.fleet.ray_session import ray_session
from cluster.groups.reward_router import RewardRouter
from cluster.loop.evaluation import evaluate
from cluster.record.append_log import RunDirectoryError
from cluster.record.reporter import Reporter
from cluster.record.terminal import make_reporter
from cluster.run_files import CONFIG
from cluster.types import Evaluation
from cluster.weights.weight_sync import serve_as_loaded
from learner.model.source import resolve_model
from reward.judging.start_check import check_judges
from reward.worker import validate_reward_config
from rollout.prompts.chat import load_tokenizer
from rollout.prompts.stream import eval_prompts

SERVE_DEADLINE_S = 60.0


def evaluate_command(model_or_run: str, config: RunConfig) -> dict[str, float]:
    """Samples and scores the held-out questions of the configuration's task; returns the metrics.

    What it waits for is said on standard error: standard output has the metrics alone. Errors: as `shoal train`.
    """
    reporter = make_reporter(sys.stderr)
    try:
        return _evaluate(model_or_run, config, reporter)
    finally:
        reporter.close()


def _evaluate(model_or_run: str, config: RunConfig, reporter: Reporter) -> dict[str, float]:
    validate_reward_config(config.reward)
    check_judges(config.reward.asked)
    with _model_directory(model_or_run, config, reporter) as model_dir:
        num_embeddings = check_model(config, model_dir)
        tokenizer = load_tokenizer(model_dir, trust_remote_code=config.model.trust_remote_code)
        samplings = {"eval.sampling": config.eval.sampling}
        check_stop_tokens(samplings, tokenizer)
        held_out = read_eval_prompts(config, tokenizer)
        prompts = eval_prompts(held_out, config.eval.num_prompts)
        check_tokens(tokenizer, prompts, model_dir, num_embeddings)
        for text in (*held_out.report.warnings, *ending_warnings(samplings, tokenizer, model_dir)):
            reporter.warn(text)
        bundles = plan_bundles(config, with_learner=False)
        reporter.phase(f"starting {len(bundles)} actors")
        with ray_session(num_cpus=total_resources(bundles).get("CPU", 1.0)):

            async def main() -> Evaluation:
                fleet = await launch_fleet(config, model_dir=str(model_dir), with_learner=False)
                try:
                    await serve_as_loaded(fleet, SERVE_DEADLINE_S)
                    num_samples = config.eval.num_samples
                    reporter.phase(f"evaluating on {len(prompts)} held-out questions, {num_samples} samples each")
                    return await evaluate(config.eval, prompts, fleet, RewardRouter(config, fleet))
                finally:
                    await fleet.close()

            return asyncio.run(main()).metrics


@contextmanager
def _model_directory(model_or_run: str, config: RunConfig, reporter: Reporter) -> Iterator[Path]:
    """The directory that the engines load; for a run, an export that lasts as long as the evaluation."""
    if not (Path(model_or_run) / CONFIG).is_file():
        trust = config.model.trust_remote_code
        yield resolve_model(
            config.model.path, trust_remote_code=trust, announce=reporter.phase, progress=reporter.progress
        )
        return
    run = Path(model_or_run).resolve()
    try:
        # Beside the run, where every node reads that trained it: the engines of other nodes load this too.
        export = tempfile.TemporaryDirectory(prefix=f".{run.name}-eval-", dir=run.parent)
    except OSError as error:
        raise RunDirectoryError(
            f"the weights of {run} cannot be exported for the evaluation, since nothing can be written beside it: "
            f"{error.strerror}; evaluate a copy of the run, or the directory that `shoal export` writes elsewhere"
        ) from error
    with export as folder:
        out = Path(folder) / "model"
        export_command(run, out)
        yield out
