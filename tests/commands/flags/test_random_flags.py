"""Flags with any values: one line that names a flag, or a configuration that can be computed."""

import dataclasses
import math

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from sgfr_jax import filters
from sgfr_jax.commands import predict, select
from sgfr_jax.commands.flags import config, options, starting
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.host import devices, interruption, memory
from sgfr_jax.detector import streams
from tests.detector import made_models

NUMBERS = (
    "nan", "inf", "-inf", "-1", "-1e-9", "0", "-0.0", "1", "2", "7", "0.5", "100", "1e9", "1e308",
    "1e-308", "1e-320", "4294967295", "4294967296", "1000000000", "9" * 400, "-" + "9" * 400,
    "1_000", "", " 3", "x", "1e", "0x10", "٣",
)  # fmt: skip
NAMES = {
    "layers": ("auto", "fast", "block4@1", "block4@1e308", "block4@1e-308", "block4@nan",
               "block4@-1", "block4@99", "block4@", "@", "block4@inf"),
    "mesh": ("auto", "0", "-1", "1", "9" * 400, "nan"),
    "geometry": ("auto", "square", "tile", "crop", "pad", "square+tile"),
    "solver": ("affine_ridge", "omp", "elastic_net", "elastic_net_bank", "nearest", "project"),
    "subspaces": ("implicit", "pca", "k_subspaces", "dictionary"),
    "sampler": ("k_center", "random", "self_representation"),
}  # fmt: skip
OF_A_RUN = [
    name
    for name in (flag.name for flag in flags.FLAGS.flags_by_module_dict()[options.__name__])
    # Where `experiments.sweep` is imported too, `--grid` is its own.
    if name != "grid" and (name in NAMES or flags.FLAGS[name].flag_type() in ("int", "float"))
]
OF_PREDICT = ("threshold", "false_alarm_rate", "pixel_threshold", "pixel_false_alarm_rate",
              "explain_top", "batch_size")  # fmt: skip


@pytest.fixture(autouse=True)
def parsed(monkeypatch):
    monkeypatch.setattr(interruption, "exit_at_once", lambda *args: None)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["run"])


def draw(rng, names):
    """Some flags and the texts that are given for them."""
    chosen = rng.choice(names, size=rng.integers(1, 4), replace=False)
    values = {name: NAMES.get(name, NUMBERS) for name in map(str, chosen)}
    return {name: some[rng.integers(len(some))] for name, some in values.items()}


def take(given):
    """Sets flags as a command line does; False, if absl has a message for one of them."""
    try:
        for name, text in given.items():
            setattr(flags.FLAGS, name, flags.FLAGS[name].parser.parse(text))
            flags.FLAGS[name].present = 1
    except (ValueError, flags.Error) as error:
        assert str(error)
        return False
    return True


def refused(call):
    """Whether there is a message, of one line that names a flag."""
    try:
        call()
    except ConfigError as error:
        assert "--" in str(error) and len(str(error).splitlines()) == 1
        return True
    return False


def check_run():
    """What `experiments.run` does with its flags before it reads an image."""
    settings = options.config_from_flags()
    devices.parse(options.MESH.value)
    options.cluster_from_flags()
    resources = starting.resources_from_flags("nowhere")
    assert 0 <= resources.cache_bytes <= 10**18
    config.check_sizes(settings, {"cap": 100})
    memory.check_batch(settings, resources.batch_size)
    memory.check(settings, {"cap": 100})
    computable(settings)


def computable(settings):
    """Numbers stay numbers in float32, and sizes are such as memory holds."""
    for name, value in settings.flat().items():
        if isinstance(value, float):
            assert 0 <= np.float32(value) < 1e7, name
            assert np.float32(value) > 1e-13 or name not in ("ridge", "l1"), name
    method = settings.method
    sides = streams.sizes(streams.plan(method, settings.network))
    assert 0 < max(sides) <= 8192
    if method.image_size <= 512:
        assert np.isfinite(filters.gaussian_matrix(method.image_size, method.sigma)).all()
    assert 1 <= method.num_atoms(10**6) <= 10**6


def test_flags_of_a_run(rng):
    outcomes = []
    for _ in range(600):
        given = draw(rng, OF_A_RUN)
        with flagsaver.flagsaver(cache_dir=""):
            outcomes.append("absl" if not take(given) else refused(check_run))
    assert {outcome: outcomes.count(outcome) > 30 for outcome in ("absl", True, False)} == {
        "absl": True, True: True, False: True,
    }  # fmt: skip


@pytest.mark.parametrize("name", OF_A_RUN)
def test_each_number_alone(name):
    for text in NAMES.get(name, NUMBERS):
        with flagsaver.flagsaver(cache_dir=""):
            if take({name: text}):
                refused(check_run)


def test_thresholds_of_predict(rng):
    settings = config.resolve(config.Config.of(layers=("fast",), bank_size=12))
    made = made_models.make(settings)
    made = dataclasses.replace(made, about=made.about._replace(notes=("a note",)))
    for _ in range(300):
        with flagsaver.flagsaver(model="a", images="b", explain=True):
            if take(draw(rng, OF_PREDICT)) and not refused(predict._check_flags):
                decisions, about = predict._decide(made)
                assert math.isfinite(decisions.image) and math.isfinite(decisions.pixel)
                assert about["thresholds"]["pixel"] == decisions.pixel


def test_candidates_of_select(rng):
    fields = list(config.FIELDS)
    base = config.Config()
    for _ in range(300):
        name = fields[rng.integers(len(fields))]
        some = NAMES.get(name, NUMBERS)
        text = f"{name}={some[rng.integers(len(some))]}|{some[rng.integers(len(some))]}"
        found = []
        if not refused(lambda text=text, found=found: found.extend(select.parse_grid(text, base))):
            for _, settings in found:
                computable(settings)
