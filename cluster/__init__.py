"""Where it all runs: Ray, the loop, recovery, the run directory, the command line."""

import sys
from importlib import import_module
from pathlib import Path

# `python -m cluster.cli` and a PYTHONPATH with "." put the folder where the program is started before our packages, and
# people keep a reward.py there. Each of ours is loaded once from beside this one, and is then what its name means.
_path = sys.path[:]
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
for _name in ("rollout", "reward", "learner"):
    import_module(_name)
sys.path[:] = _path
