"""A solver that goes wrong, as one of somebody's own may."""

import jax.numpy as jnp

from sgfr_jax import types
from sgfr_jax.detector import alternatives


def broken_solver():
    """Codes of NaN, whatever the patches."""

    def code(targets, bank):
        return types.Code(None, jnp.full((len(targets), len(bank.atoms)), jnp.nan))

    return alternatives.Solver(lambda config: code)
