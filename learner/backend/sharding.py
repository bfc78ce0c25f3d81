"""Weights that ZeRO-3 has spread over the ranks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor


@contextmanager
def gathered(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Parameters whole on every rank while inside; all ranks must enter together. Nothing to do below ZeRO-3."""
    if spread := [parameter for parameter in parameters if hasattr(parameter, "ds_id")]:
        import deepspeed

        with deepspeed.zero.GatheredParameters(spread, modifier_rank=None):
            yield
    else:
        yield


def full_shape(parameter: Tensor) -> tuple[int, ...]:
    """Shape of the whole weight; under ZeRO-3 the parameter itself is empty."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))
