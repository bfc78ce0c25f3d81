"""Where a tracker's metrics go: TensorBoard, Weights & Biases, MLflow, trackio, each by its own library."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from cluster.run_files import TENSORBOARD


class Sink(Protocol):
    """One place where metrics go. Any exception switches it off."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes the metrics of a step."""

    def close(self) -> None:
        """Sends what has not been sent."""


def sink_makers(project: str, run_path: Path, config: dict[str, Any]) -> dict[str, Callable[[], Sink]]:
    """Name of a tracker -> what opens its sink for a run; `config` is the run's, without secrets."""
    name = run_path.name
    return {
        "tensorboard": lambda: _TensorBoard(run_path / TENSORBOARD),
        "wandb": lambda: _Wandb(project, name, run_path, config),
        "mlflow": lambda: _Mlflow(project, name, config),
        "trackio": lambda: _Trackio(project, name, config),
    }


class _TensorBoard:
    def __init__(self, path: Path) -> None:
        from tensorboard.summary import Writer  # TensorBoard's own writer: it needs no torch

        self._writer = Writer(str(path))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # the page is looked at while the run goes on

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, project: str, name: str, path: Path, config: dict[str, Any]) -> None:
        import wandb

        self._run = wandb.init(project=project, name=name, dir=str(path), config=config)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    def __init__(self, project: str, name: str, config: dict[str, Any]) -> None:
        import mlflow

        self._client = mlflow.MlflowClient()
        experiment = self._client.get_experiment_by_name(project)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(project)
        self._run_id = self._client.create_run(experiment_id, run_name=name).info.run_id
        self._client.log_dict(self._run_id, config, "config.json")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._client.log_metric(self._run_id, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._run_id)


class _Trackio:
    def __init__(self, project: str, name: str, config: dict[str, Any]) -> None:
        import trackio

        self._module = trackio
        trackio.init(project=project, name=name, config=config)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._module.log(dict(metrics), step=step)

    def close(self) -> None:
        self._module.finish()
