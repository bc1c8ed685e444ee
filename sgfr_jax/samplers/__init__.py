"""Choosing the few nominal patches that make the bank.

A sampler is `sample(key, points [N, D], weights [N], num) -> Selection`. Points of weight 0 are
padding and never chosen, whatever they hold; nor are points that are not finite. Where there are
fewer points than `num`, the slots left over are padding of weight 0 in turn, so that padded
problems of one shape can be mapped over. Hyperparameters are keywords, to be bound.

Selections hold squared distances, so the largest entry of the points must lie within 1e-12 and 1e12
in float32. Others raise ValueError or, where `jax.jit` hides them, leave all slots to padding.
"""

from sgfr_jax.samplers.eligibility import budget
from sgfr_jax.samplers.k_center import greedy_k_center, k_center_advance, k_center_start
from sgfr_jax.samplers.k_medoids import d2_sampling, k_medoids
from sgfr_jax.samplers.l1_cost import l1_cost
from sgfr_jax.samplers.self_representation import (
    self_representation,
    self_representation_advance,
    self_representation_start,
)
from sgfr_jax.samplers.support_frequency import support_frequency
from sgfr_jax.samplers.uniform import uniform

__all__ = [
    "budget",
    "d2_sampling",
    "greedy_k_center",
    "k_center_advance",
    "k_center_start",
    "k_medoids",
    "l1_cost",
    "self_representation",
    "self_representation_advance",
    "self_representation_start",
    "support_frequency",
    "uniform",
]
