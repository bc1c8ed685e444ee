"""Starts `sgfr_jax.commands.run`; installed, it is called `sgfr-run`."""

from sgfr_jax.commands import run

if __name__ == "__main__":
    run.console()
