"""A saved model as one pure function of images: network, codes, map and score.

    model = models.load("runs/demo/models/brick")
    whole = predictor.make(model)
    found = jax.jit(whole.predict)(*(squares(size) for size in predictor.sizes(model.config)))

`squares(size)` being uint8 `[B, size, size, 3]`: the same images at every size that the model looks
at. Weights and fitted state are constants of it, so it can be compiled, differentiated or exported
(`experiments.export`) by itself.
"""

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sgfr_jax import frames, linalg
from sgfr_jax.commands import run
from sgfr_jax.commands.flags.config import Config
from sgfr_jax.commands.host import devices
from sgfr_jax.detector import (
    choices,
    fused,
    fused_scorer,
    models,
    stages,
    streams,
)
from sgfr_jax.detector.choices import ConfigError

# Solvers whose work is a fixed sequence of operations that every runtime has.
SOLVERS = ("affine_ridge", "ridge", "nearest")


class Prediction(NamedTuple):
    """What is made of `B` images, or of one."""

    anomaly_map: jax.Array  # [B, S, S] float32
    score: jax.Array  # [B] float32


class Predictor(NamedTuple):
    """A model in two parts, weights and fitted state included."""

    embed: Callable[..., Any]  # uint8 [B, size, size, 3] of all `sizes` -> patches [B, P, D]
    score: Callable[[Any], Prediction]  # the patches [P, D] of one image

    def predict(self, *images: jax.Array) -> Prediction:
        """Maps and scores of images: uint8 `[B, size, size, 3]` for each of `sizes`."""
        return jax.lax.map(self.score, self.embed(*images))


def sizes(config: Config) -> tuple[int, ...]:
    """The sides of the squares that a model wants its images resized to."""
    if not config.has_streams:
        return (config.image_size,)
    return tuple(dict.fromkeys(stream.image_size for stream in streams.plan(config)))


def check(config: Config) -> None:
    """Raises ConfigError for a configuration of which no predictor can be made."""
    if config.solver not in SOLVERS:
        raise ConfigError(
            f"--model: its --solver={config.solver} cannot be exported; {', '.join(SOLVERS)} can"
        )
    if config.geometry != "square":
        raise ConfigError(
            f"--model: its --geometry={config.geometry} cannot be exported, as a file takes squares"
            " that show images whole: fit it with --geometry=square"
        )


def make(model: models.Model, *, plain: bool = False) -> Predictor:
    """The predictor of a model.

    Its parts are a run's own (`stages`, `fused`), but all patches of an image are coded at once, by
    a solver of small linear systems that calls no library: scores agree with a run's to rounding.
    An image's result does not depend on the others of its batch.

    Args:
      model: from `models.load`.
      plain: without loops, and without what differs between platforms: for converters to other
        languages than XLA's.

    Raises:
      ConfigError: if it is of a kind that has none; see `check`.
    """
    config = model.config
    check(config)
    _, embedders = run.make_detector(config, run.Resources(Path(), mesh=devices.ONE))
    backbone = embedders[0].load()
    if plain:
        backbone = backbone._replace(embed=partial(backbone.embed, batched=True))
    planned = streams.plan(config) if config.has_streams else ()
    by_size = itertools.groupby(planned, lambda stream: stream.image_size)
    shapes = [[stream.shape for stream in of_size] for _, of_size in by_size]
    scorer = _scorer(config, planned, unroll=plain)
    state = jax.tree.map(jnp.asarray, model.state)

    def embed(*images: jax.Array):
        found = [
            embedder.compiled(backbone, squares)[0]
            for embedder, squares in zip(embedders, images, strict=True)
        ]
        if not planned:
            return found[0]
        return [x for of_size in zip(found, shapes, strict=True) for x in fused.part(*of_size)]

    def score(patches) -> Prediction:
        found = scorer(state, jax.tree.map(lambda x: x[None], patches))
        return Prediction(*(x[0] for x in found))

    return Predictor(embed, score)


def _scorer(config: Config, planned, *, unroll: bool) -> Callable:
    """`(state, patches of some images) -> (maps, scores)`."""
    code = choices.make_coder(config.solver, config)
    if unroll:
        code = partial(code, search=partial(linalg.nearest, frame=frames.frame))
    if config.solver != "nearest":
        linear_solve = partial(linalg.solve_by_elimination, unroll=unroll)
        code = partial(code, solve=partial(code.keywords["solve"], linear_solve=linear_solve))
    grid = max((stream.grid for stream in planned), default=config.grid)
    coding = stages.Coding(code, grid**2)
    if planned:
        return fused_scorer.Scorer(config, planned, config.solver, coding).score
    return stages.make_scorer(config, config.solver, coding)
