"""Self-expressive codes: a target as a linear combination of few atoms of the bank.

A code is a support (which atoms) and a penalty on its coefficients. A coder is
`code(targets [N, D], bank) -> Code` once its hyperparameters are bound by `functools.partial`:

- `local_code`: the K nearest atoms, under a penalty;
- `omp`: atoms chosen one after the other, each for what the earlier ones left;
- `elastic_net_code` (lasso at `l2=0`) and `whole_bank_ridge`: all atoms of the bank;
- `project`: the best of the subspaces that `types.subspace_bank` made a bank of.

A penalty of `local_code` is `solve(target [D], support [K, D], valid [K]) -> coefficients [K]`:
`affine_ridge`, `ridge`, `nonnegative`, `elastic_net`, `lasso`, `nearest`. Penalties are relative to
the size of the data they apply to, so no code depends on the unit of the features. Targets and
atoms are divided by powers of two near their largest entries first, so that this holds for norms
from 1e-30 to 1e30 in float32, where squares would vanish or overflow.

What all share: padding atoms get coefficient 0; targets and atoms are floating, and computed in at
least float32; a target with NaN has a residual of NaN, and changes no other; of a bank with NaN in
an atom all residuals are NaN (maps are made of all
the patches of an image, and are NaN as a whole: `maps.anomaly_map`); gradients with respect
to targets and atoms are those of the code on the support it chose, right wherever a small
change leaves that choice as it is.
"""

from sgfr_jax.solvers.closed_form import affine_ridge, ridge
from sgfr_jax.solvers.constrained import elastic_net, lasso, nonnegative
from sgfr_jax.solvers.local import Solve, local_code, nearest
from sgfr_jax.solvers.projection import project
from sgfr_jax.solvers.pursuit import omp
from sgfr_jax.solvers.whole_bank import whole_bank_ridge
from sgfr_jax.solvers.whole_bank_sparse import (
    ElasticNetSolution,
    elastic_net_code,
    elastic_net_solution,
)

__all__ = [
    "ElasticNetSolution",
    "Solve",
    "affine_ridge",
    "elastic_net",
    "elastic_net_code",
    "elastic_net_solution",
    "lasso",
    "local_code",
    "nearest",
    "nonnegative",
    "omp",
    "project",
    "ridge",
    "whole_bank_ridge",
]
