"""Starts `sgfr_jax.commands.report`; installed, it is called `sgfr-report`."""

from sgfr_jax.commands import report

if __name__ == "__main__":
    report.main()
