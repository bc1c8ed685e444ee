"""The command and the functions of the front page give the same scores and maps, bit for bit."""

import jax
import numpy as np
import pytest
from PIL import Image

import sgfr_jax as sgfr
from sgfr_jax.commands import run
from sgfr_jax.commands.flags import config
from sgfr_jax.commands.host import machine
from sgfr_jax.datasets.geometry import to_size
from tests.small import texture

SIZE = 64
FIELDS = {"image_size": SIZE, "bank_size": 20, "num_neighbors": 5}


def write(root, rng, shapes):
    """A folder of photographs of these shapes, as training and as test images."""
    images = {}
    for split, kind in (("train", "good"), ("test", "good"), ("test", "dent")):
        place = root / split / kind
        place.mkdir(parents=True)
        for i, shape in enumerate(shapes):
            image = np.resize(texture(rng, max(shape)), (max(shape),) * 2)[: shape[0], : shape[1]]
            if kind == "dent":
                image = image.copy()
                image[10:20, 12:30] = 255 - image[10:20, 12:30]
            Image.fromarray(image).save(place / f"{i}.png")
            images[f"{split}/{kind}/{i}.png"] = image
    return images


@pytest.mark.parametrize(
    "fields, shapes",
    [
        ({"layers": ("block2", "block4")}, [(SIZE, SIZE)] * 4),
        pytest.param(
            {"layers": ("block4@1", "block2@1.5")}, [(SIZE, SIZE)] * 4, marks=pytest.mark.slow
        ),
        pytest.param(
            {"layers": ("block4@1",)}, [(SIZE, 96), (96, SIZE), (80, 80), (SIZE, 130)],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"layers": ("auto",), "large_image_size": 96}, [(150, 150)] * 4, marks=pytest.mark.slow
        ),
    ],
    ids=["squares of one bank", "squares of several", "both looks", "large squares"],
)  # fmt: skip
def test_scores_and_maps(fields, shapes, rng, tmp_path):
    written = write(tmp_path / "photographs", rng, shapes)
    settings = config.resolve(
        config.Config.of(
            dataset="folder", data_dir=str(tmp_path / "photographs"), seed=3, **FIELDS, **fields
        )
    )
    resources = machine.Resources(tmp_path / "out", save_maps=True, num_figures=0, num_review=0)
    (record,) = run.run(settings, resources)

    train = [image for name, image in written.items() if name.startswith("train")]
    detector = sgfr.fit_detector(jax.random.key(3), train, method=sgfr.Method(**FIELDS, **fields))
    looks = len(detector.state.looks)
    assert looks == (2 if len(set(shapes)) > 1 else 1)
    test = {name: image for name, image in written.items() if name.startswith("test")}
    size = detector.method.image_size
    assert size == fields.get("large_image_size", SIZE)
    found = dict(zip(test, sgfr.predict(detector, list(test.values())), strict=True))

    assert len(record.images) == len(test)
    for row in record.images:
        assert np.float32(found[row["file"]].score) == np.float32(row["score"])
        path = tmp_path / "out" / "maps" / "photographs" / f"{row['file']}.npy"
        kept, of_call = np.load(path), found[row["file"]].anomaly_map
        if size == SIZE:
            of_call = to_size(of_call, (SIZE, SIZE))
        else:  # maps of photographs that were shrunk come back at their size
            kept = to_size(kept, of_call.shape)
        np.testing.assert_array_equal(kept, of_call)
