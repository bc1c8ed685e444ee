"""The stages of one method on one machine: what embeds, what fits and scores, compiled."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sgfr_jax.detector import embedding, programs, streams
from sgfr_jax.detector.embedding import Embedder
from sgfr_jax.detector.method import Method
from sgfr_jax.detector.network import Network
from sgfr_jax.detector.programs import Programs
from sgfr_jax.detector.services import PLAIN, Services
from sgfr_jax.detector.splits import Split
from sgfr_jax.detector.streams import Stream


class Stages(NamedTuple):
    """What a category is fitted and scored with."""

    method: Method  # from `settle.settle`
    network: Network
    streams: tuple[Stream, ...]
    embedders: tuple[Embedder, ...]  # one for each image size
    programs: dict[str, Programs]  # by solver, the method's own first
    services: Services

    def batches(self, split: Split) -> Iterator[tuple[np.ndarray, ...]]:
        """The patches `[n, P, D]` of every stream, of some squares at a time.

        Args:
          split: of `splits.views`; `n` is at most the batch size.

        Raises:
          DatasetError: if features are not finite.
        """
        for batch in zip(*(embedder.batches(split) for embedder in self.embedders), strict=True):
            yield tuple(itertools.chain.from_iterable(batch))


def of_method(stages: Stages, method: Method) -> Stages:
    """The stages of another method that looks through the same network and has the same solvers."""
    if method == stages.method:
        return stages
    own, *baselines = stages.programs
    if own != method.solver:
        raise ValueError(f"solver={method.solver} must be {own}")
    return make(method, stages.network, stages.services, baselines=baselines)


def make(
    method: Method,
    network: Network,
    services: Services = PLAIN,
    *,
    baselines: Sequence[str] = (),
) -> Stages:
    """The stages of a method.

    Args:
      method: from `settle.settle`.
      network: that it looks through.
      services: of the machine.
      baselines: solvers that score beside the method's own, on the same banks.
    """
    planned = streams.plan(method, network)
    embedders = embedding.make_embedders(
        network, planned, unit_norm=method.unit_norm, services=services
    )
    made = {
        solver: programs.make(method, planned, services, solver)
        for solver in (method.solver, *baselines)
    }
    return Stages(method, network, planned, embedders, made, services)
