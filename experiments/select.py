"""Starts `sgfr_jax.commands.select`; installed, it is called `sgfr-select`."""

from sgfr_jax.commands import select

if __name__ == "__main__":
    select.console()
