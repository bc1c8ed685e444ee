"""Experiments from a checkout: `python -m experiments.run` starts `sgfr_jax.commands.run`."""
