"""Starts `sgfr_jax.commands.export`; installed, it is called `sgfr-export`."""

from sgfr_jax.commands import export

if __name__ == "__main__":
    export.main()
