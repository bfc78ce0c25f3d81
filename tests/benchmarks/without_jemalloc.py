"""`shoal`, whose learner has the system's allocator: for benchmarks of what the other one is worth."""

import sys

from cluster import cli
from cluster.fleet import roles


def _nothing() -> dict[str, str]:
    return {}


if __name__ == "__main__":
    vars(roles)["keep_memory"] = _nothing
    sys.exit(cli.main())
