"""A run with every kind of file, what may happen to each of them, and every address of the API."""

import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from cluster.record.run_directory import RunDirectory
from learner.saving.files import write_manifest
from tests.cluster.dashboard.small_runs import TOKENS, group, write_run

RUN_LOCK, TENSORBOARD = "run.lock", "tensorboard/events.out.tfevents.1.host"
CHECKPOINT, MANIFEST = "checkpoints/step-00000002", "checkpoints/step-00000002/manifest.json"
TABLE, EVALUATION = "rollouts/step-000001.parquet", "rollouts/eval-000000.parquet"
FILES = (
    "config.yaml",
    "metrics.jsonl",
    "evaluations.jsonl",
    "events.jsonl",
    "ledger.jsonl",
    TABLE,
    EVALUATION,
    "vocabulary.json",
    "summary.json",
    MANIFEST,
    RUN_LOCK,
    TENSORBOARD,
)
FOLDERS = ("rollouts", "checkpoints", CHECKPOINT, "tensorboard")
UNREAD = (RUN_LOCK, TENSORBOARD, "tensorboard")
"""Nothing that is shown comes from them."""
OPTIONAL = ("vocabulary.json", "summary.json", "checkpoints", CHECKPOINT, *UNREAD)
"""A run may be without."""


def make_whole_run(path: Path) -> RunDirectory:
    """Three steps, two evaluations, one checkpoint, all files; finished, and nothing of it was written lately."""
    run = write_run(path)
    run.write_vocabulary([f"piece{i}" for i in range(10 + 2 * TOKENS)])
    checkpoint = path / CHECKPOINT
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"x" * 1000)
    write_manifest(checkpoint)
    (path / "tensorboard").mkdir()
    (path / TENSORBOARD).write_bytes(b"x" * 100)
    (path / RUN_LOCK).write_text("{}")
    return run


def addresses() -> dict[str, str]:
    """Every address below the run -> a key of its answer. Group 2 is the first of step 1, the one in TABLE."""
    ids = {step: group(2 * step).group_id for step in range(3)}
    held_out = group(1000, question=7).group_id
    return {
        "": "problems",
        "overview": "tiles",
        "overview?points=2&from=0&to=1": "charts",
        "metrics?names=reward/mean": "series",
        "steps": "steps",
        "steps?phase=eval": "steps",
        **{f"steps/train/{step}": "groups" for step in range(3)},
        **{f"steps/eval/{step}": "groups" for step in (0, 3)},
        "rollouts?filter=correct&sort=-length": "rows",
        "rollouts?filter=would&sort=reward": "rows",
        **{f"groups/train/{step}/{id}": "rollouts" for step, id in ids.items()},
        f"groups/eval/0/{held_out}": "rollouts",
        **{f"rollouts/train/{step}/{id}/0": "tokens" for step, id in ids.items()},
        f"rollouts/eval/3/{held_out}/1": "tokens",
        "timeline": "lanes",
        "spans/0": "ids",
        "trace.json": "traceEvents",
        "fleet": "actors",
        "ledger": "counts",
        "ledger/groups": "groups",
        f"prompts/{0:016x}": "history",
        "doctor": "findings",
        "config": "yaml",
    }


def _truncated(path: Path, outside: Path) -> None:
    """Within a record: no line ends there."""
    data = path.read_bytes()
    cut = max(1, 2 * len(data) // 3)
    if path.suffix == ".yaml":  # in the middle of a key: a part of a value may be a value
        line = data.rfind(b"\n", 0, cut) + 1
        cut = line + len(data[line:]) - len(data[line:].lstrip()) + 2
    path.write_bytes(data[: cut - 1] if data[cut - 1 : cut] == b"\n" else data[:cut])


def _random_bytes(path: Path, outside: Path) -> None:
    path.write_bytes(random.Random(path.name).randbytes(3000))


def _random_within(path: Path, outside: Path) -> None:
    """A sector of something else, its size as it was."""
    data = bytearray(path.read_bytes())
    at = len(data) // 3
    data[at : at + 64] = random.Random(path.name).randbytes(len(data[at : at + 64]))
    path.write_bytes(data)


def _half_line(path: Path, outside: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"step": 99, "reward/mean": 0.')


def _foreign(path: Path, outside: Path) -> None:
    """Well formed, and of other types than ours at every turn."""
    path.write_text(
        '{"step": [1], "status": {"a": 1}, "kind": [], "actor": 7, "group_id": {}, "pieces": {"0": 1}, "files": [3],'
        ' "learner": 3, "rollout": [], "model": "x", "task": null, "eval": true, "steps": "many", "error": ["x"],'
        ' "num_steps": "x", "accuracy_before": "x", "groups_rejected": 7, "groups_dispatched": [], "sampling": 1}\n'
    )


def _folder(path: Path, outside: Path) -> None:
    path.unlink()
    path.mkdir()


def _link(path: Path, outside: Path) -> None:
    target = outside / path.name
    path.rename(target)
    path.symlink_to(target)


def _pipe(path: Path, outside: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE: Mapping[str, Callable[[Path, Path], None]] = {
    "missing": lambda path, outside: path.unlink(),
    "empty": lambda path, outside: os.truncate(path, 0),
    "truncated": _truncated,
    "random bytes": _random_bytes,
    "random within": _random_within,
    "half a line": _half_line,
    "foreign": _foreign,
    "folder": _folder,
    "unreadable": lambda path, outside: path.chmod(0),
    "link": _link,
    "pipe": _pipe,
}
"""Name -> (file, a folder outside of the run) -> None."""


def _folder_to_file(path: Path, outside: Path) -> None:
    shutil.rmtree(path)
    path.write_text("x")


FOLDER_DAMAGE: Mapping[str, Callable[[Path, Path], None]] = {
    "missing": lambda path, outside: shutil.rmtree(path),
    "file": _folder_to_file,
    "unreadable": lambda path, outside: path.chmod(0),
    "link": _link,
}
