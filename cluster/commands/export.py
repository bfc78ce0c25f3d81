"""`shoal export`: a run's newest checkpoint as a Hugging Face directory."""

from pathlib import Path

from cluster.errors import ResumeError
from cluster.record.run_directory import RunDirectory
from learner.model.source import resolve_model
from learner.saving.checkpoint import export_checkpoint
from learner.saving.files import newest_valid


def export_command(run_path: Path, out: Path) -> None:
    """Writes weights, configuration and tokenizer so that transformers and vLLM load them.

    Errors: `RunDirectoryError` for no run, `ResumeError` without a complete checkpoint, `ModelError` for a directory
    that is not empty.
    """
    run = RunDirectory.existing(run_path)
    checkpoint = newest_valid(run.checkpoints_path)
    if checkpoint is None:
        raise ResumeError(f"{run_path} has no complete checkpoint, so there are no weights to export")
    model = run.read_config().model
    export_checkpoint(checkpoint, resolve_model(model.path, trust_remote_code=model.trust_remote_code), out)
