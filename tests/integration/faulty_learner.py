"""Learners that send wrong weights, for tests of what the receiving side notices. Run as a program: a `shoal` whose
learner is the one named first."""

import sys
from dataclasses import replace

import torch

import learner.worker
from learner.worker import LearnerWorker
from rollout.transfer.manifest import WeightChunk, WeightManifest

FAULTY_VERSION = 2
TENSOR = "model.layers.1.mlp.up_proj.weight"


class AltersTensor(LearnerWorker):
    """Flips one bit of a tensor after its digest was taken."""

    def weight_chunk(self, index: int, *, as_delta: bool = False) -> WeightChunk | None:
        chunk = super().weight_chunk(index, as_delta=as_delta)
        if chunk is None or chunk.policy_version != FAULTY_VERSION or index != 0:
            return chunk
        data = chunk.data.copy()
        data[len(data) // 2] ^= 1
        return replace(chunk, data=data)


class ForgetsTensor(LearnerWorker):
    """Does not send one tensor and says nothing of it: manifest and digests agree with what is sent."""

    def weight_manifest(self) -> WeightManifest:
        if self.policy_version == FAULTY_VERSION:
            chunks = self._sender._chunks
            self._sender._chunks = tuple(tuple(spec for spec in specs if spec.name != TENSOR) for specs in chunks)
            assert self._sender._chunks != chunks
        return super().weight_manifest()


class ChangesTensor(LearnerWorker):
    """Sends one tensor other than it trains with, under a digest that is right for what is sent."""

    def weight_chunk(self, index: int, *, as_delta: bool = False) -> WeightChunk | None:
        if self.policy_version != FAULTY_VERSION:
            return super().weight_chunk(index, as_delta=as_delta)
        weight = self._sender._weights[TENSOR]
        kept = weight.detach().clone()
        with torch.no_grad():
            weight.mul_(1.05)
        try:
            return super().weight_chunk(index, as_delta=as_delta)
        finally:
            with torch.no_grad():
                weight.copy_(kept)


if __name__ == "__main__":
    from cluster.cli import main
    from tests.integration import faulty_learner

    # By its import path, which the actor's process can import too; here this file is `__main__`.
    learner.worker.LearnerWorker = getattr(faulty_learner, sys.argv[1])  # type: ignore[misc]
    sys.exit(main(sys.argv[2:]))
