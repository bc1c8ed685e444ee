"""Starts `sgfr_jax.commands.sweep`; installed, it is called `sgfr-sweep`."""

from sgfr_jax.commands import sweep

if __name__ == "__main__":
    sweep.console()
