"""Starts `sgfr_jax.commands.update`; installed, it is called `sgfr-update`."""

from sgfr_jax.commands import update

if __name__ == "__main__":
    update.console()
