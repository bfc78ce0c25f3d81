"""What the learner writes into a checkpoint, and how it comes back. See `files.py` for the directory itself.

    model.safetensors         the whole policy in fp32, Hugging Face names: what `export` reads, without a learner
    reference.safetensors     the reference's weights, where `learner.objective.reference` moves it
    learner.json              counters, and the shape of the run that wrote it
    random-rank-R.safetensors states of the random number generators of rank R
    deepspeed/state/          DeepSpeed's own files: its shares of weights and optimizer state

DeepSpeed's files are pickles, so nothing is loaded before every file was checked against the manifest.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from learner.backend.engine import TrainingEngine
from learner.backend.sharding import gathered
from learner.model.policy import LogprobModel
from learner.saving.files import verify_manifest
from rollout.errors import CheckpointError, ModelError

WEIGHTS = "model.safetensors"
REFERENCE = "reference.safetensors"
STATE = "learner.json"
DEEPSPEED_FOLDER = "deepspeed"
DEEPSPEED_TAG = "state"
# Files of a model directory that hold weights in some format: an export has its own.
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".msgpack", ".h5", ".onnx", ".index.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerState:
    """The counters that a run goes on from, and what the files can be loaded into."""

    policy_version: int
    optimizer_steps: int
    bad_steps_in_a_row: int
    world_size: int
    zero_stage: int
    entropy_coef: float | None = None
    """Of the entropy bonus, where it adapts; else None, and not in the file."""
    last_entropy: float | None = None
    """Mean entropy (nats) of the last update, where the bonus adapts and there was one."""


def save(  # what a checkpoint is made of
    engine: TrainingEngine,
    model: LogprobModel,
    state: LearnerState,
    directory: Path,
    *,
    rank: int,
    reference: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes this rank's part. All ranks call it with the same, not yet published directory; then one of them (or the
    controller) writes the manifest and publishes. `reference`: weights of a reference that moves, from rank 0; one that
    is the starting weights is not written.

    Errors: `CheckpointError` on every rank when one of them could not write; all can go on training.
    """
    writes = _Writes()
    if rank == 0:
        writes(directory.mkdir, parents=True, exist_ok=True)
        known = {name: value for name, value in asdict(state).items() if value is not None}
        writes((directory / STATE).write_text, json.dumps(known, indent=1) + "\n")
        if reference is not None:
            writes(save_file, dict(reference), directory / REFERENCE, metadata={"format": "pt"})
    with _deepspeed_writes_with(engine.deepspeed, writes):
        engine.deepspeed.save_checkpoint(str(directory / DEEPSPEED_FOLDER), tag=DEEPSPEED_TAG, save_latest=False)
    writes(save_file, _random_states(), directory / f"random-rank-{rank}.safetensors")
    weights = full_weights(model, rank=rank)
    if rank == 0:
        writes(save_file, weights, directory / WEIGHTS, metadata={"format": "pt"})
    # No rank returns before all have written: whoever writes the manifest next must see every file.
    failed = torch.tensor([float(writes.error is not None)], device=engine.device)
    torch.distributed.all_reduce(failed)
    if failed.item() > 0:
        why = f"rank {rank} could not write: {writes.error}" if writes.error else "another rank could not write"
        raise CheckpointError(f"{directory} is not complete: {why}") from writes.error


class _Writes:
    """Writes until one fails. The failure is kept, not raised: the other ranks wait in barriers, DeepSpeed's own among
    them, and would be alone there until the process group's deadline."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __call__(self, write: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        if self.error is not None:
            return
        try:
            write(*args, **kwargs)
        # Three libraries, three errors for a disk that is full: Python's, PyTorch's and safetensors'.
        except (OSError, RuntimeError, SafetensorError) as error:
            self.error = error


@contextmanager
def _deepspeed_writes_with(deepspeed_engine: Any, writes: _Writes) -> Iterator[None]:
    """What DeepSpeed writes while this holds goes through `writes`."""
    files = deepspeed_engine.checkpoint_engine
    replaced = {
        (files, "makedirs"): partial(writes, files.makedirs),
        (files, "save"): partial(writes, files.save),
        # A script that puts the shares together. The whole weights are beside them, so nobody needs it.
        (deepspeed_engine, "_copy_recovery_script"): lambda _: None,
    }
    for (owner, name), function in replaced.items():
        setattr(owner, name, function)
    try:
        yield
    finally:
        for owner, name in replaced:
            delattr(owner, name)  # the class's own is behind it


def load(
    engine: TrainingEngine, directory: Path, *, rank: int, world_size: int, is_hashed: bool = False
) -> LearnerState:
    """Puts engine, optimizer and random number generators into the state that was saved. All ranks call it.
    `is_hashed`: whoever found the checkpoint has read and compared every byte, which each rank need not do again.

    Errors: `CheckpointError` when a file is damaged or the run had other ranks or another ZeRO stage; the engine is
    then unchanged.
    """
    verify_manifest(directory, is_hashed=is_hashed)
    state = LearnerState(**json.loads((directory / STATE).read_text()))
    if (state.world_size, state.zero_stage) != (world_size, engine.zero_stage):
        raise CheckpointError(
            f"checkpoint {directory} was written by {state.world_size} ranks with ZeRO stage {state.zero_stage} and "
            f"cannot go on with {world_size} ranks and stage {engine.zero_stage}: set learner.num_ranks and "
            "learner.zero_stage as they were, or export it and start a new run from the export"
        )
    path, _ = engine.deepspeed.load_checkpoint(
        str(directory / DEEPSPEED_FOLDER), tag=DEEPSPEED_TAG, load_lr_scheduler_states=False
    )
    if path is None:
        raise CheckpointError(f"checkpoint {directory} has no DeepSpeed state for rank {rank}; use an older checkpoint")
    _restore_random_states(load_file(directory / f"random-rank-{rank}.safetensors"))
    torch.distributed.barrier()
    return state


def load_reference(directory: Path) -> dict[str, Tensor] | None:
    """The reference's weights from a checkpoint that `load` accepted. None: it was the starting weights until then."""
    path = directory / REFERENCE
    return load_file(path) if path.is_file() else None


def full_weights(model: LogprobModel, *, rank: int) -> dict[str, Tensor]:
    """All weights and persistent buffers under Hugging Face names, in fp32 on the CPU of rank 0; empty on others."""
    weights: dict[str, Tensor] = {}
    for name, parameter in model.named_weights().items():
        with gathered([parameter]):
            if rank == 0:
                weights[name] = parameter.detach().to("cpu", torch.float32, copy=True).contiguous()
    if rank == 0:
        buffers = model.named_buffers_in_files()
        weights.update({name: value.detach().cpu().clone().contiguous() for name, value in buffers.items()})
    return weights


def export_hf(weights: Mapping[str, Tensor], base_model_dir: Path, out_dir: Path) -> None:
    """A Hugging Face directory: these weights in fp32, everything else copied from the model that training began with.

    Errors: `ModelError` when `out_dir` has files or `base_model_dir` has no config.json.
    """
    if out_dir.exists() and any(out_dir.iterdir()):
        raise ModelError(f"cannot export to {out_dir}: it is not empty; name a new directory")
    if not (base_model_dir / "config.json").is_file():
        raise ModelError(f"cannot export: {base_model_dir} has no config.json to copy")
    out_dir.mkdir(parents=True, exist_ok=True)
    for path in base_model_dir.iterdir():
        if path.is_file() and not path.name.endswith(_WEIGHT_SUFFIXES):
            shutil.copyfile(path, out_dir / path.name)
    config = json.loads((base_model_dir / "config.json").read_text())
    # Loaders take the precision from here, and a lower one would round the weights. Nor are they quantised any more.
    config.pop("torch_dtype", None)
    config.pop("quantization_config", None)
    config["dtype"] = "float32"
    (out_dir / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(dict(weights), out_dir / WEIGHTS, metadata={"format": "pt"})


def export_checkpoint(checkpoint: Path, base_model_dir: Path, out_dir: Path) -> None:
    """The same from a published checkpoint, without a learner.

    Errors: `CheckpointError` when a file is damaged, `ModelError` as `export_hf`.
    """
    verify_manifest(checkpoint)
    export_hf(load_file(checkpoint / WEIGHTS), base_model_dir, out_dir)


def _random_states() -> dict[str, Tensor]:
    states = {"cpu": torch.random.get_rng_state()}
    if torch.cuda.is_initialized():  # by a rank on a GPU; asking would make a rank on CPUs take one
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _restore_random_states(states: Mapping[str, Tensor]) -> None:
    torch.random.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(states["cuda"])
