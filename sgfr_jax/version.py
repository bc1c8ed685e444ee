"""The version, in a file that the build can read without importing jax."""

__version__ = "0.1.0"
