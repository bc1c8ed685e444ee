"""The detector as an estimator of scikit-learn, for pipelines and tools that expect one.

    detector = AnomalyDetector().fit(images)       # nominal images: uint8 arrays, or paths
    labels = detector.predict(new_images)          # 1: nominal, -1: anomalous
    maps = detector.anomaly_maps(new_images)

The functions of `sgfr_jax.detector` do the work. Signs and names follow scikit-learn's
outlier detectors.
"""

import numbers
from collections.abc import Sequence
from typing import Any, Self

import jax
import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sgfr_jax.detector import api
from sgfr_jax.detector.api import Image, Prediction
from sgfr_jax.detector.method import Method
from sgfr_jax.detector.network import Network

# Integers below it are drawn where `random_state` is none.
_SEEDS = 2**31


class AnomalyDetector(OutlierMixin, BaseEstimator):
    """Learns what nominal images look like, and tells anomalous ones from them.

    Images are a sequence of arrays, uint8 `[H, W]` or `[H, W, 3]` of any size, or of paths; or one
    array `[n, H, W]` or `[n, H, W, 3]`.

    The images of `fit` are all taken for nominal: there is no `contamination`, and `fit_predict`
    says little, as images score low that atoms are chosen from.

    Args:
      method: what to do; None: the default, `Method()`.
      network: one of ours by name, or anybody's (`make_network`); None: the method's `backbone`.
      random_state: an integer: what `fit` draws is that of `jax.random.key(random_state)`; None or
        a `RandomState`: every `fit` draws anew.
      false_alarm_rate: the share of nominal images that `predict` may call anomalous, in (0, 1).

    Attributes:
      detector_: the `Detector`, which `explain`, `update`, `save` and `export` take.
      threshold_: the score above which an image is anomalous, from nominal images that are held out
        (`thresholds.Threshold`); it says whether there were enough of them for the rate.
      offset_: `-threshold_.score`: `decision_function` is `score_samples` less the offset.
    """

    def __init__(
        self,
        method: Method | None = None,
        network: Network | str | None = None,
        random_state: int | np.random.RandomState | None = 0,
        false_alarm_rate: float = 0.01,
    ):
        self.method = method
        self.network = network
        self.random_state = random_state
        self.false_alarm_rate = false_alarm_rate

    def fit(self, X: Sequence[Image], y: Any = None) -> Self:
        """Fits the detector to nominal images.

        Args:
          X: `n` images.
          y: not used; pipelines pass it.

        Raises:
          ArgumentError: if the rate is not in (0, 1), a field of the method cannot be honoured, or
            there is no image.
          DatasetError, WeightsError: as `fit_detector`.
        """
        api.check_rate(self.false_alarm_rate)
        key = jax.random.key(self._seed())
        self.detector_ = api.fit_detector(key, X, method=self.method, network=self.network)
        self.threshold_ = api.threshold(self.detector_, self.false_alarm_rate)
        self.offset_ = -self.threshold_.score
        return self

    def score_samples(self, X: Sequence[Image]) -> np.ndarray:
        """How nominal images are, `[n]` float64: higher is more nominal, the negated score.

        Args:
          X: `n` images.

        Raises:
          NotFittedError: before `fit`.
          DatasetError, WeightsError: as `predict` of `sgfr_jax.detector`.
        """
        return -np.array([found.score for found in self._predictions(X)], np.float64)

    def decision_function(self, X: Sequence[Image]) -> np.ndarray:
        """`score_samples` less `offset_`, `[n]`: negative for anomalous images; errors likewise."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Sequence[Image]) -> np.ndarray:
        """1 for nominal and -1 for anomalous images, `[n]`; errors as of `score_samples`."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def anomaly_maps(self, X: Sequence[Image]) -> list[np.ndarray]:
        """Where images are anomalous: float32 `[H, W]` of each; errors as of `score_samples`."""
        return [found.anomaly_map for found in self._predictions(X)]

    def _predictions(self, X: Sequence[Image]) -> list[Prediction]:
        check_is_fitted(self)
        return api.predict(self.detector_, X)

    def _seed(self) -> int:
        if isinstance(self.random_state, numbers.Integral):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(_SEEDS))

    def __sklearn_tags__(self):
        """What scikit-learn's tools are told of the input: images, not rows of features."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags
