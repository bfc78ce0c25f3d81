"""What a session with Ray leaves on the terminal."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys, time
from pathlib import Path
import ray
from cluster.fleet.ray_session import ray_session

def fails(path):
    Path(path).touch()
    raise ValueError("asked for, and given up")

with ray_session(num_cpus=1.0):
    answer = ray.remote(fails).remote(sys.argv[1])
    deadline = time.monotonic() + 60
    while not Path(sys.argv[1]).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2)  # the error travels
    del answer
    time.sleep(0.5)
print("ended")
"""


def test_an_answer_that_nobody_waits_for_leaves_no_trace(tmp_path: Path) -> None:
    called, program = tmp_path / "called", tmp_path / "program.py"
    program.write_text(PROGRAM)
    root = Path(__file__).parents[3]
    run = subprocess.run(
        [sys.executable, str(program), str(called)],
        capture_output=True, text=True, timeout=120, check=False, cwd=root, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert called.exists(), run.stderr
    assert run.stdout == "ended\n", run.stderr
    assert "Unhandled" not in run.stderr
