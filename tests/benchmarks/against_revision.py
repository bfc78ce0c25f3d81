"""Wall time of `shoal train quickstart` over that of an earlier revision, each with what its own lock installs; alone
on the machine, some 15 minutes for a turn.

python -m tests.benchmarks.against_revision 4bc6696
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.pairs import Ratio
from tests.benchmarks.results import Bound, Result, write
from tests.benchmarks.suite import told

ROOT = Path(__file__).parents[2]
DEADLINE_S = 1800.0


@contextlib.contextmanager
def installed(revision: str, folder: Path) -> Iterator[Path]:
    """A worktree of the revision with its own environment."""
    tree = folder / "revision"
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", tree, revision], cwd=ROOT, check=True)
    try:
        subprocess.run(["make", "--silent", "setup"], cwd=tree, check=True, env=_environment())
        yield tree
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)


def _environment() -> dict[str, str]:
    # Compiled files are kept, as `make` has it; without them each process would compile what it imports.
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def seconds(shoal: Path, runs: Path) -> float:
    """From the command to its end, evaluations and checkpoints included."""
    started = time.perf_counter()
    command: list[str | Path] = [shoal, "train", "quickstart", f"runs_dir={runs}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=runs, timeout=DEADLINE_S, env=_environment())
    return time.perf_counter() - started


def main() -> None:
    """In turn; written into docs/benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision")
    parser.add_argument("--turns", type=int, default=1)
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    ours = Path(sys.executable).with_name("shoal")
    with tempfile.TemporaryDirectory() as name, installed(arguments.revision, Path(name)) as tree:
        folder = Path(name) / "runs"
        folder.mkdir()
        for shoal in (ours, tree / ".venv" / "bin" / "shoal"):  # compiles what is imported
            subprocess.run([shoal, "train", "tiny", "steps=1", f"runs_dir={folder}"], check=True, env=_environment())
        pairs = []
        for turn in range(arguments.turns):
            arms = [ours, tree / ".venv" / "bin" / "shoal"]
            taken = {shoal: seconds(shoal, folder) for shoal in (arms if turn % 2 == 0 else arms[::-1])}
            pairs.append((taken[arms[0]], taken[arms[1]]))
            print(f"{pairs[-1][0]:.0f} s and {pairs[-1][1]:.0f} s", flush=True)
    ratio = Ratio.of(tuple(one / other for one, other in pairs))
    note = f"{pairs[0][0]:.0f} and {pairs[0][1]:.0f} s"
    what = f"wall time of `shoal train quickstart` over that of revision {arguments.revision}"
    result = Result.of("quickstart.wall", what, ratio, Bound(value=0.6, is_least=False), note)
    print(told(result), flush=True)
    write([result])


if __name__ == "__main__":
    main()
