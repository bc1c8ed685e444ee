"""The whole method: nominal images to a fitted detector, new images to maps and scores.

`fit_detector`, `predict`, `threshold`, `explain`, `update`, `save`, `load` and `export` are what
most need. Below them are the stages, for whoever composes them: `features` has the method for
features of your own, `squares` scores images as one pure function, `make_network` brings a network
of your own.
"""

from sgfr_jax.detector.api import (
    Prediction,
    explain,
    export,
    fit_detector,
    predict,
    threshold,
    update,
)
from sgfr_jax.detector.features import calibrate, draw_defects, fit_banks, score, weigh
from sgfr_jax.detector.method import Method
from sgfr_jax.detector.model import Detector
from sgfr_jax.detector.network import Network
from sgfr_jax.detector.network import make as make_network
from sgfr_jax.detector.saved import load, save
from sgfr_jax.detector.services import Services
from sgfr_jax.detector.squares import load_network, score_squares, sizes
from sgfr_jax.detector.state import Look, State

__all__ = [
    "Detector",
    "Look",
    "Method",
    "Network",
    "Prediction",
    "Services",
    "State",
    "calibrate",
    "draw_defects",
    "explain",
    "export",
    "fit_banks",
    "fit_detector",
    "load",
    "load_network",
    "make_network",
    "predict",
    "save",
    "score",
    "score_squares",
    "sizes",
    "threshold",
    "update",
    "weigh",
]
