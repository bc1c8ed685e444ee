"""Starts `sgfr_jax.commands.predict`; installed, it is called `sgfr-predict`."""

from sgfr_jax.commands import predict

if __name__ == "__main__":
    predict.console()
