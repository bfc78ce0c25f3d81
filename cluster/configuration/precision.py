"""What `dtype: auto` is on the machine where a run is started.

bfloat16 takes half of the memory, and on processors that multiply it, half of the time. On those that do not, PyTorch
multiplies it number by number: a step of `quickstart`, half a minute in float32, does not end within five minutes.
"""

from functools import cache
from pathlib import Path
from typing import Any

from cluster.config import RunConfig

CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Of which a processor that multiplies bfloat16 has one, as Linux lists them; the last is ARM's."""


@cache
def multiplies_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has instructions for products of bfloat16; False where that cannot be told."""
    if not cpuinfo.is_file():
        return False
    with cpuinfo.open(encoding="utf-8", errors="replace") as lines:
        words = next((line.split() for line in lines if line.startswith(("flags", "Features"))), [])
    return not CPU_FLAGS.isdisjoint(words)


def with_precision(config: RunConfig) -> RunConfig:
    """The configuration without `auto`. Raises ValidationError for what does not go with what it became."""
    on_cpu = "bfloat16" if multiplies_bfloat16() else "float32"
    found: dict[str, Any] = config.model_dump()
    for part, gpus in (("rollout", config.rollout.gpus_per_engine), ("learner", config.learner.gpus_per_rank)):
        if found[part]["dtype"] == "auto":
            found[part]["dtype"] = "bfloat16" if gpus else on_cpu
    if (found["rollout"]["dtype"], found["learner"]["dtype"]) == (config.rollout.dtype, config.learner.dtype):
        return config
    return RunConfig.model_validate(found)
