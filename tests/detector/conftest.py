from typing import NamedTuple

import jax
import numpy as np
import pytest

from sgfr_jax.detector import fitting, stages
from sgfr_jax.detector.fitting import Fitted
from sgfr_jax.detector.services import PLAIN
from sgfr_jax.detector.splits import Split
from sgfr_jax.detector.stages import Stages
from tests import small
from tests.detector import pretended


class Small(NamedTuple):
    """Stages, and what they were fitted to: photographs, and others with defects in the last."""

    stages: Stages
    train: Split
    test: Split
    fitted: Fitted

    @property
    def look(self):
        return self.fitted.states["nearest"].looks[0]


def photographs():
    """Five to fit, and six of which the last three have a dent."""
    rng = np.random.default_rng(0)
    found = [small.texture(rng) for _ in range(11)]
    for image in found[8:]:
        image[20:40, 30:46] = 255
    return found[:5], found[5:]


def fit(**fields):
    method = pretended.settled(solver="nearest", bank_size=20, **fields)
    made = stages.make(method, pretended.NETWORK, PLAIN._replace(batch_size=6))
    train, test = map(pretended.split_of, photographs())
    with pytest.MonkeyPatch.context() as patch:
        pretended.few_defects(patch)
        fitted = fitting.fit(made, jax.random.key(0), train, "cap")
    return Small(made, train, test, fitted)


@pytest.fixture(scope="session")
def streams():
    """The automatic detector at its smallest, compiled once for all tests."""
    return fit()


@pytest.fixture(scope="session")
def one_bank():
    return fit(layers=("fine", "coarse"))
