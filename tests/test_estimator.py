import pickle

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone, is_outlier_detector
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks
from sklearn.utils.validation import check_is_fitted, validate_data

import sgfr_jax as sgfr
from sgfr_jax import thresholds
from sgfr_jax.errors import ArgumentError
from sgfr_jax.estimator import AnomalyDetector
from tests.detector import pretended

METHOD = sgfr.Method.fast(image_size=64, bank_size=20, num_neighbors=3)
RATE = 0.2


def make(**parameters):
    given = {"method": METHOD, "network": pretended.NETWORK, "false_alarm_rate": RATE}
    return AnomalyDetector(**given | parameters)


@pytest.fixture(scope="module")
def nominal():
    return np.stack(pretended.images(np.random.default_rng(0), num=12))


@pytest.fixture(scope="module")
def new():
    """Four nominal images, and two with a bright square."""
    found = np.stack(pretended.images(np.random.default_rng(1), num=6))
    found[4:, 20:44, 12:40] = 255
    return found


@pytest.fixture(scope="module")
def fitted(nominal):
    return make(random_state=3).fit(nominal)


def test_the_functions_of_the_detector_in_scikit_learns_terms(fitted, nominal, new):
    key = jax.random.key(3)
    detector = sgfr.fit_detector(key, nominal, method=METHOD, network=pretended.NETWORK)
    expected = sgfr.predict(detector, new)
    scores = np.array([found.score for found in expected])
    found = fitted.score_samples(new)
    np.testing.assert_array_equal(found, -scores)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(
        fitted.anomaly_maps(new), [found.anomaly_map for found in expected]
    )
    wanted = thresholds.at_false_alarm_rate(detector.nulls.images, RATE)
    assert (fitted.threshold_, fitted.offset_) == (wanted, -wanted.score)
    np.testing.assert_array_equal(fitted.decision_function(new), found - fitted.offset_)
    np.testing.assert_array_equal(fitted.predict(new), np.where(scores > wanted.score, -1, 1))


def test_what_is_anomalous(fitted, new):
    decisions, labels = fitted.decision_function(new), fitted.predict(new)
    assert labels.dtype.kind == "i" and labels[4:].tolist() == [-1, -1]
    assert decisions[:4].min() > decisions[4:].max()
    # A score at the threshold is nominal.
    at_threshold = clone(fitted)
    at_threshold.detector_ = fitted.detector_
    at_threshold.offset_ = fitted.score_samples(new)[4]
    assert at_threshold.decision_function(new)[4] == 0 and at_threshold.predict(new)[4] == 1
    assert is_outlier_detector(fitted)


def test_images_in_every_form(fitted, new, tmp_path):
    expected = fitted.score_samples(new)
    paths = [tmp_path / f"{i}.png" for i in range(len(new))]
    for path, image in zip(paths, new, strict=True):
        Image.fromarray(image).save(path)
    for images in (list(new), paths, np.array([str(path) for path in paths])):
        np.testing.assert_array_equal(fitted.score_samples(images), expected)
    # Grey ones, of another size.
    (found,) = fitted.anomaly_maps(new[:1, :48, :, 0])
    assert found.shape == (48, 64) and found.dtype == np.float32


def test_a_pipeline(fitted, nominal, new):
    turn = FunctionTransformer(lambda images: [np.rot90(image) for image in images])
    pipeline = make_pipeline(turn, clone(fitted)).fit(nominal, np.zeros(len(nominal)))
    turned = make(random_state=3).fit([np.rot90(image) for image in nominal])
    expected = turned.decision_function([np.rot90(image) for image in new])
    np.testing.assert_array_equal(pipeline.decision_function(new), expected)
    np.testing.assert_array_equal(pipeline.predict(new), np.where(expected < 0, -1, 1))
    np.testing.assert_array_equal(pipeline.score_samples(new), expected + turned.offset_)


def test_copies(fitted, nominal, new):
    expected = fitted.score_samples(new)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.score_samples(new), expected)
    unfitted = clone(fitted)
    assert unfitted.get_params() == fitted.get_params() and not hasattr(unfitted, "detector_")
    labels = unfitted.fit_predict(nominal)
    np.testing.assert_array_equal(labels, fitted.predict(nominal))
    np.testing.assert_array_equal(unfitted.score_samples(new), expected)


def test_random_states(nominal):
    def seed(random_state):
        return make(random_state=random_state).fit(nominal[:4]).detector_.about.seed

    assert seed(5) == seed(np.int64(5)) == 5
    state = np.random.RandomState(0)
    drawn = [seed(state), seed(state)]
    assert drawn[0] == seed(np.random.RandomState(0)) != drawn[1]


@pytest.mark.parametrize("rate", [0, 1, -0.1, float("nan")])
def test_rates_that_are_none(rate, nominal):
    with pytest.raises(ArgumentError, match=f"false_alarm_rate={rate} must lie between 0 and 1"):
        make(false_alarm_rate=rate).fit(nominal)


def test_images_that_are_none(fitted, nominal):
    with pytest.raises(ValueError, match=r"images\[0\] is float64 \[64, 64, 3\]"):
        fitted.score_samples(nominal / 255)
    with pytest.raises(ValueError, match="one nominal image at least"):
        make().fit([])


@pytest.mark.parametrize(
    "method", ["score_samples", "decision_function", "predict", "anomaly_maps"]
)
def test_nothing_before_fit(method, new):
    with pytest.raises(NotFittedError):
        getattr(make(), method)(new)


# Of scikit-learn's own checks those that fit nothing.
@pytest.mark.parametrize(
    "check",
    [
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_estimator_tags_renamed",
        "check_estimators_unfitted",
        "check_get_params_invariance",
        "check_mixin_order",
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_set_params",
        "check_valid_tag_types",
    ],
)
def test_conventions(check):
    getattr(estimator_checks, check)("AnomalyDetector", make())


class OfRows(AnomalyDetector):
    """Sees rows of numbers, as scikit-learn's checks have them, as images with stripes."""

    def fit(self, X, y=None):
        return super().fit(self._images(X, reset=True))

    def score_samples(self, X):
        check_is_fitted(self)
        return super().score_samples(self._images(X, reset=False))

    def _images(self, X, *, reset):
        rows = validate_data(self, X, reset=reset)
        grey = np.round(255 / (1 + np.exp(-np.clip(rows / 3, -50, 50)))).astype(np.uint8)
        stripes = np.stack([np.resize(row, 64) for row in grey])
        return np.repeat(stripes[:, None], 64, axis=1)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


@pytest.mark.slow
def test_all_checks_of_scikit_learn():
    method = sgfr.Method.fast(image_size=64, bank_size=5, num_neighbors=2)
    estimator = OfRows(method, pretended.NETWORK, false_alarm_rate=0.3)
    with jax.numpy_rank_promotion("allow"):
        checked = estimator_checks.check_estimator(estimator, on_skip=None)
    passed = [of["check_name"] for of in checked if of["status"] == "passed"]
    assert {"check_estimators_pickle", "check_fit_idempotent", "check_outliers_train"} <= {*passed}
