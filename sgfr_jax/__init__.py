"""Subspace-guided feature reconstruction for unsupervised anomaly localization, in JAX.

The whole method, from nominal images (uint8 arrays `[H, W, 3]`, or paths) to maps and scores:

    detector = fit_detector(jax.random.key(0), images)
    found = predict(detector, new_images)       # of each: anomaly_map [H, W], score, p_value
    save(path, detector)
    detector = load(path)

`method=Method.fast()` is the plain method, and `network=make_network(...)` a network of your own.
`sgfr_jax.detector` has the stages below these calls.

The core is pure functions of arrays, none of which calls `jax.jit`. With `levels` from any network
as a mapping of name to `[B, h, w, D]`:

    features = unit_norm(merge_levels(levels, grid=(16, 16)))
    bank = fit(key, features.reshape(-1, D), weights, sample=greedy_k_center, num_atoms=1000)
    code = bind(local_code, num_neighbors=10, solve=bind(affine_ridge, ridge=1e-3))
    scores = score(bank, features.reshape(-1, D), code=code)
    maps = anomaly_map(scores.reshape(-1, 16, 16), (256, 256), sigma=4.0)

`bind` gives what `functools.partial` does, but equal where its values are:
`jax.jit(score, static_argnames="code")` compiles once for equal coders.

Imported by their own names: `sgfr_jax.backbones` loads pretrained networks, `sgfr_jax.datasets`
reads images, `sgfr_jax.metrics` and `sgfr_jax.histograms` evaluate, `sgfr_jax.streaming` samples in
one pass, `sgfr_jax.search` finds nearest atoms on accelerators, `sgfr_jax.subspaces` learns bases,
`sgfr_jax.calibration` and `sgfr_jax.fusion` put banks together, `sgfr_jax.diagnostics` judges one,
`sgfr_jax.thresholds` turns scores into decisions, `sgfr_jax.saving` keeps any fitted state,
`sgfr_jax.sharding` spreads fitting and scoring over devices.
"""

from sgfr_jax.binding import bind
from sgfr_jax.detector import (
    Detector,
    Method,
    Network,
    Prediction,
    Services,
    explain,
    export,
    fit_detector,
    load,
    make_network,
    predict,
    save,
    score_squares,
    threshold,
    update,
)
from sgfr_jax.errors import ArgumentError
from sgfr_jax.maps import anomaly_map, breadth, halo, image_prior, image_score
from sgfr_jax.patches import merge_levels, unit_norm
from sgfr_jax.pipeline import fit, score, score_and_owner, score_held_out
from sgfr_jax.reconstruction import reconstruct, residual, residual_norm
from sgfr_jax.samplers import (
    budget,
    d2_sampling,
    greedy_k_center,
    k_center_advance,
    k_center_start,
    k_medoids,
    l1_cost,
    self_representation,
    self_representation_advance,
    self_representation_start,
    support_frequency,
    uniform,
)
from sgfr_jax.solvers import (
    ElasticNetSolution,
    affine_ridge,
    elastic_net,
    elastic_net_code,
    elastic_net_solution,
    lasso,
    local_code,
    nearest,
    nonnegative,
    omp,
    project,
    ridge,
    whole_bank_ridge,
)
from sgfr_jax.types import Bank, Code, Selection, Subspaces, make_bank, subspace_bank
from sgfr_jax.version import __version__

__all__ = [
    "ArgumentError",
    "Bank",
    "Code",
    "Detector",
    "ElasticNetSolution",
    "Method",
    "Network",
    "Prediction",
    "Selection",
    "Services",
    "Subspaces",
    "__version__",
    "affine_ridge",
    "anomaly_map",
    "bind",
    "breadth",
    "budget",
    "d2_sampling",
    "elastic_net",
    "elastic_net_code",
    "elastic_net_solution",
    "explain",
    "export",
    "fit",
    "fit_detector",
    "greedy_k_center",
    "halo",
    "image_prior",
    "image_score",
    "k_center_advance",
    "k_center_start",
    "k_medoids",
    "l1_cost",
    "lasso",
    "load",
    "local_code",
    "make_bank",
    "make_network",
    "merge_levels",
    "nearest",
    "nonnegative",
    "omp",
    "predict",
    "project",
    "reconstruct",
    "residual",
    "residual_norm",
    "ridge",
    "save",
    "score",
    "score_and_owner",
    "score_held_out",
    "score_squares",
    "self_representation",
    "self_representation_advance",
    "self_representation_start",
    "subspace_bank",
    "support_frequency",
    "threshold",
    "uniform",
    "unit_norm",
    "update",
    "whole_bank_ridge",
]
