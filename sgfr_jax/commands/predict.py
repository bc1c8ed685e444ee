r"""Scores any images with a saved model, and outlines what is anomalous in them.

    python -m experiments.run --save_model
    python -m experiments.predict --model=runs/demo/models/brick --images=my_photographs
    python -m experiments.predict --model=DIR --images='parts/**/*.png' --fail_on_anomaly

The output directory receives scores.csv (path, score, p_value, nominal_below = 1 - p_value,
decision), predictions.json (thresholds and what was skipped), maps/ (16-bit PNGs whose text fields
`offset` and `scale` give the value, or float32 TIFFs), overlays/ and contours.json (COCO polygons
of what is above the pixel threshold). Maps and overlays have the image's own size, or less if that
is more than 2 megapixels (--output_scale). With --explain also explanations/, a page for each of
the highest scores, and explanations.json: where the image is anomalous, which nominal patches tried
to mimic it there, with what weights, from which training image and place, and which levels of the
network carry what they could not. Models of any geometry are explained: each way of looking at
images by patches of its own, and those of tiles by the tile in which the place lies deepest.

written.jsonl names every file that was written. A later call with the same directory replaces these
and says so; what it does not name is left alone, and in the way if it has a name of ours.

Thresholds come from nominal images alone: by default 1% of nominal images may be called anomalous,
and 0.1% of their pixels outlined. Files that cannot be read are named and skipped; images of a kind
that is not read, such as a camera's own, are counted with them.

Exit status: 0 done; 1 a mistake; with --fail_on_anomaly also 3 an image is anomalous, and 4 none
is but some could not be read.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from sgfr_jax.commands.flags import checking, launching, model_flags, options, starting
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.host import interruption, progress, terminal

flags.adopt_module_key_flags(model_flags)
MODEL, IMAGES = model_flags.MODEL, model_flags.IMAGES
OUTPUT_DIR = flags.DEFINE_string("output_dir", "predictions", "Where to write.")
THRESHOLD = flags.DEFINE_string(
    "threshold", None,
    "Images that score more are anomalous: a number, or f1 for the best F1 on the labelled test"
    " images of the run. By default from --false_alarm_rate.",
)  # fmt: skip
FALSE_ALARM_RATE = flags.DEFINE_float(
    "false_alarm_rate", 0.01, "The share of nominal images that may be called anomalous."
)
PIXEL_THRESHOLD = flags.DEFINE_float(
    "pixel_threshold", None,
    "Pixels of the maps above this are outlined; by default from --pixel_false_alarm_rate.",
)  # fmt: skip
PIXEL_FALSE_ALARM_RATE = flags.DEFINE_float(
    "pixel_false_alarm_rate", 0.001, "The share of the pixels of nominal images that may be."
)
MAPS = flags.DEFINE_string("maps", "png", "How maps are written: png, tiff or none.")
OUTPUT_SCALE = flags.DEFINE_float(
    "output_scale", None,
    "The sides of maps and overlays as a share of the image's, 1 at most. By default 1; for images"
    " of more than 2 megapixels (Full HD) as much as leaves 1.3. Outlines follow the map as it is"
    " drawn, and are given in pixels of the image.",
)  # fmt: skip
OVERLAYS = flags.DEFINE_bool("overlays", True, "Draw map and outlines on each image.")
CONTOURS = flags.DEFINE_bool("contours", True, "Write the outlines as polygons.")
EXPLAIN = flags.DEFINE_bool(
    "explain", False, "Show what tried to mimic the anomalies, for the highest scores."
)
EXPLAIN_TOP = flags.DEFINE_integer(
    "explain_top", 10, "How many images --explain explains, those of the highest scores."
)
FAIL_ON_ANOMALY = flags.DEFINE_bool(
    "fail_on_anomaly", False, "End with status 3 if an image is anomalous, 4 if some were skipped."
)
# Of experiments.run: what does not change what a model is.
_SHARED = ("weights", "batch_size", "cache_dir", "mesh")
for name in _SHARED:
    flags.declare_key_flag(name)

FOUND, SKIPPED = 3, 4
CONFIDENCE = 0.95
_LEAST_RATE = 1e-9  # a promise that no number of images can keep is none


def predict() -> int:
    """Does what the flags ask for; returns the exit status.

    Raises:
      ConfigError, DatasetError, SavingError, WeightsError: on mistakes that the user can mend.
    """
    _check_flags()
    # Imported late: `--help` and a mistyped flag need not wait for these.
    from sgfr_jax.commands.files import prediction, written
    from sgfr_jax.commands.flags.config import Config
    from sgfr_jax.commands.host import machine, memory
    from sgfr_jax.commands.pages import explaining, predictions
    from sgfr_jax.datasets import depth, left_out
    from sgfr_jax.detector import model, predicting, saved, settle

    checking.check_known("maps", "format", MAPS.value, predictions.MAPS)
    resources = starting.resources_from_flags(Path())  # keeps compiled programs
    output_dir = checking.path("output_dir", OUTPUT_DIR.value)
    detector = saved.load(checking.path("model", MODEL.value), weights=model_flags.weights())
    memory.check_batch(Config(method=detector.method), options.BATCH_SIZE.value)
    named = prediction.find(IMAGES.value, predictions.drawn(output_dir))
    sources, faulty = prediction.parted(named)
    not_read = prediction.not_read(IMAGES.value)
    unlike = depth.note_on([source.path for source in sources], detector.about.white)
    for note in (*left_out.notes(not_read), *unlike):
        print(f"note: {note}", file=sys.stderr)
    decisions, about = _decide(detector)
    with written.opened(output_dir, "--output_dir", "predict") as output:
        writer = predictions.Writer(
            output, detector.nulls, decisions, maps=MAPS.value, overlays=OVERLAYS.value,
            outlines=CONTOURS.value, explained=EXPLAIN.value, output_scale=OUTPUT_SCALE.value,
            sources=sources,
        )  # fmt: skip
        interruption.exit_at_once(
            lambda: _leave(writer, about), f"what was scored so far lies in {output.directory}"
        )
        min_side = settle.largest_stride(detector.method, detector.network)
        stages = model.stages_of(detector, machine.services(resources))
        found = prediction.predict(
            predicting.make_scorer(detector, stages), sources,
            batch_size=options.BATCH_SIZE.value, min_side=min_side, white=detector.about.white,
        )  # fmt: skip
        for one in faulty:
            print(terminal.one_line(f"skipped: {one.problem}"), file=sys.stderr)
        scored, unread = [], [*faulty, *prediction.unread(not_read)]
        for one in unread:
            writer.add(one)
        try:
            with progress.bar("scoring", len(sources), "images") as report:
                for one in found:
                    if isinstance(one, prediction.Unread):
                        print(terminal.one_line(f"skipped: {one.problem}"), file=sys.stderr)
                    else:
                        scored.append((one.score, one.source))
                    writer.add(one)
                    report(1)
        finally:
            writer.finish(about)
        if EXPLAIN.value:
            scored.sort(key=lambda pair: -pair[0])
            worst = [source for _, source in scored[: EXPLAIN_TOP.value]]
            explaining.write(output, detector, stages, worst, writer.scale, min_side=min_side)
    return _conclude(writer, len(sources) + len(unread))


def _leave(writer, about: dict[str, Any]) -> None:
    """What an interrupt does: all that is there is kept, and known to be ours."""
    writer.finish(about)
    writer.output.close()


def _check_flags() -> None:
    model_flags.check((MODEL, IMAGES), _SHARED)
    for flag in (FALSE_ALARM_RATE, PIXEL_FALSE_ALARM_RATE):
        if not _LEAST_RATE <= flag.value < 1:
            raise ConfigError(
                f"--{flag.name}={flag.value} must lie between 0 and 1, {_LEAST_RATE:g} at least"
            )
    if THRESHOLD.value not in (None, "f1") and not _is_finite(THRESHOLD.value):
        raise ConfigError(f"--threshold={THRESHOLD.value} must be a number or f1")
    if PIXEL_THRESHOLD.value is not None and not math.isfinite(PIXEL_THRESHOLD.value):
        raise ConfigError(f"--pixel_threshold={PIXEL_THRESHOLD.value} must be a number")
    if OUTPUT_SCALE.value is not None:
        if not 0 < OUTPUT_SCALE.value <= 1:
            raise ConfigError(
                f"--output_scale={OUTPUT_SCALE.value} must be more than 0, and at most 1"
            )
        if MAPS.value == "none" and not OVERLAYS.value and not CONTOURS.value:
            raise ConfigError(
                "--output_scale: nothing is drawn with --maps=none, --nooverlays and --nocontours"
            )
    if EXPLAIN_TOP.value < 1:
        raise ConfigError(f"--explain_top={EXPLAIN_TOP.value} must be at least 1")
    if flags.FLAGS["explain_top"].present and not EXPLAIN.value:
        raise ConfigError("--explain_top says how many images --explain explains: add --explain")
    if THRESHOLD.value is not None and flags.FLAGS["false_alarm_rate"].present:
        raise ConfigError("--threshold and --false_alarm_rate both say what is anomalous; give one")
    if PIXEL_THRESHOLD.value is not None and flags.FLAGS["pixel_false_alarm_rate"].present:
        raise ConfigError(
            "--pixel_threshold and --pixel_false_alarm_rate both say what is anomalous; give one"
        )


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _decide(detector) -> tuple[Any, dict[str, Any]]:
    """The thresholds, and what `predictions.json` says of them; prints it too."""
    from sgfr_jax import thresholds
    from sgfr_jax.commands.pages import predictions

    if THRESHOLD.value is None:
        chosen = thresholds.at_false_alarm_rate(
            detector.nulls.images, FALSE_ALARM_RATE.value, confidence=CONFIDENCE
        )
        image, described = chosen.score, chosen._asdict()
        if not chosen.enough:
            print(
                f"note: --false_alarm_rate={chosen.wanted:g} needs"
                f" {thresholds.images_needed(chosen.wanted)} held-out nominal images, and the model"
                f" has {chosen.num_null}: the threshold is their largest score",
                file=sys.stderr,
            )
        print(
            f"threshold {image:.6g}: {chosen.expected:.2%} of nominal images are expected above it,"
            f" {chosen.upper:.2%} at most with {CONFIDENCE:.0%} confidence ({chosen.num_null} held"
            " out), if they are like the training images",
            file=sys.stderr,
        )
    else:
        image = _given_threshold(detector)
        described = {"score": image, "given": THRESHOLD.value}
        print(f"threshold {image:.6g} (--threshold={THRESHOLD.value})", file=sys.stderr)
    pixel = PIXEL_THRESHOLD.value
    if pixel is None:
        pixel = thresholds.pixel_threshold(detector.nulls.pixels, PIXEL_FALSE_ALARM_RATE.value)
    about = {
        "model": str(checking.path("model", MODEL.value).absolute()),
        "category": detector.about.category,
        "null": detector.about.notes[-1] if detector.about.notes else "",
        "thresholds": {"image": described, "pixel": pixel},
    }
    return predictions.Decisions(image, pixel), about


def _given_threshold(detector) -> float:
    if THRESHOLD.value == "f1":
        if detector.about.f1_threshold is None:
            raise ConfigError(
                "--threshold=f1: this model was scored on no defective and nominal test images,"
                " or has grown since; give a number or --false_alarm_rate"
            )
        return detector.about.f1_threshold
    return float(THRESHOLD.value)


def _conclude(writer, num_sources: int) -> int:
    """Says what was found; returns the exit status."""
    skipped = len(writer.unread)
    if skipped == num_sources:
        raise ConfigError(f"--images={IMAGES.value}: none of {num_sources} images could be scored")
    print(
        f"{writer.num_anomalous} of {num_sources - skipped} images are anomalous"
        + (f", {skipped} skipped" if skipped else "")
        + f"; written to {writer.directory}: scores.csv, predictions.json"
        + ("" if MAPS.value == "none" else ", maps/")
        + (", overlays/" if OVERLAYS.value else "")
        + (", contours.json" if CONTOURS.value else "")
        + (", explanations.json, explanations/" if EXPLAIN.value else "")
    )
    if FAIL_ON_ANOMALY.value and writer.num_anomalous:
        return FOUND
    return SKIPPED if FAIL_ON_ANOMALY.value and skipped else 0


def main(argv: Sequence[str]) -> None:
    """Predicts, and turns every foreseen mistake into one line and an exit status."""
    starting.start(argv, "nothing was scored yet")
    with starting.exit_on_mistakes(f"--output_dir={OUTPUT_DIR.value}"):
        status = predict()
    sys.exit(status)


def console() -> None:
    """The command `sgfr-predict`."""
    launching.launch(main, __name__)
