"""A fitted detector in two parts that every runtime has: one embeds squares, one scores them:

    whole = exporting.make(detector)
    found = jax.jit(whole.predict)(*(squares(size) for size in detector.squares.sizes(detector)))

`squares(size)` being uint8 `[B, size, size, 3]`: the same images at every size that the detector
looks at. Weights and fitted state are constants of it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export

from sgfr_jax import frames, linalg
from sgfr_jax.detector import alternatives, settle, squares, streams
from sgfr_jax.detector.method import Method
from sgfr_jax.detector.model import Detector
from sgfr_jax.detector.scoring import Coding
from sgfr_jax.errors import ArgumentError

# Solvers whose work is a fixed sequence of operations that every runtime has.
SOLVERS = ("affine_ridge", "ridge", "nearest")
# That a program of StableHLO can be lowered for.
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


class Exported(NamedTuple):
    """What is made of `B` images, or of one."""

    anomaly_map: jax.Array  # [B, S, S] float32
    score: jax.Array  # [B] float32


class Predictor(NamedTuple):
    """A detector in two parts, weights and fitted state included."""

    embed: Callable[..., Any]  # uint8 [B, size, size, 3] of all sizes -> patches [B, P, D]
    score: Callable[[Any], Exported]  # the patches [P, D] of one image

    def predict(self, *images: jax.Array) -> Exported:
        """Maps and scores of images: uint8 `[B, size, size, 3]` for each of the sizes."""
        return jax.lax.map(self.score, self.embed(*images))


def check(method: Method) -> None:
    """Raises ArgumentError for a method of which no predictor can be made."""
    if method.solver not in SOLVERS:
        raise ArgumentError(
            f"`model`: its solver={method.solver} cannot be exported; {', '.join(SOLVERS)} can"
        )
    if method.geometry != "square":
        raise ArgumentError(
            f"`model`: its geometry={method.geometry} cannot be exported, as a file takes squares"
            " that show images whole: fit it with geometry=square"
        )


def make(detector: Detector, *, plain: bool = False) -> Predictor:
    """The predictor of a detector.

    It scores as `squares.score_squares`, but all patches of an image are coded at once, by a solver
    of small linear systems that calls no library: scores agree with a run's to rounding. An image's
    result does not depend on the others of its batch.

    Args:
      detector: fitted.
      plain: without loops, and without what differs between platforms: for converters to other
        languages than XLA's.

    Raises:
      ArgumentError: if it is of a kind that has none; see `check`.
      WeightsError: if the network's weights cannot be read.
    """
    method = detector.method
    check(method)
    loaded = squares.load_network(detector)
    if plain:
        loaded = loaded._replace(embed=loaded.without_loops or loaded.embed)
    planned = streams.plan(method, detector.network)
    coding = _coding(method, max(stream.grid for stream in planned) ** 2, unroll=plain)
    (look,) = jax.tree.map(jnp.asarray, detector.state).looks

    def embed(*images: jax.Array):
        return squares.embed(detector, loaded, images)

    def score(patches) -> Exported:
        of_one = [features[None] for features in patches]
        found = squares.score_patches(method, planned, look, of_one, None, coding)
        return Exported(*(x[0] for x in found))

    return Predictor(embed, score)


def _coding(method: Method, chunk_size: int, *, unroll: bool) -> Coding:
    code = alternatives.make_coder(method.solver, method)
    if unroll:
        code = partial(code, search=partial(linalg.nearest, frame=frames.frame))
    if method.solver != "nearest":
        linear_solve = partial(linalg.solve_by_elimination, unroll=unroll)
        code = partial(code, solve=partial(code.keywords["solve"], linear_solve=linear_solve))
    return Coding(code, chunk_size)


def to_stablehlo(
    detector: Detector, platforms: Sequence[str] | str, *, jit: Callable = jax.jit
) -> bytes:
    """The predictor as one program for a batch of any size, which JAX alone runs.

    Args:
      detector: fitted.
      platforms: that it is lowered for, of `PLATFORMS`; one, or several.
      jit: what compiles.

    Returns:
      What `jax.export.deserialize` reads: a function of uint8 `[b, size, size, 3]` for each size,
      to a dictionary of `anomaly_map` and `score`.

    Raises:
      ArgumentError: as `make`, and if a platform is not known.
      WeightsError: as `make`.
    """
    platforms = (platforms,) if isinstance(platforms, str) else tuple(platforms)
    settle.require(bool(platforms), "platforms", platforms, f"one of {PLATFORMS} at least")
    for platform in platforms:
        settle.check_known("platforms", "platform", platform, PLATFORMS)
    whole = make(detector)

    def predict(*images):
        return whole.predict(*images)._asdict()  # a type that every process knows

    (batch,) = export.symbolic_shape("b")
    like = [
        jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8) for size in squares.sizes(detector)
    ]
    return bytes(export.export(jit(predict), platforms=platforms)(*like).serialize())
