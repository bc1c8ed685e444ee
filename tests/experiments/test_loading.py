import dataclasses

import numpy as np
import pytest

from experiments import loading
from sgfr_jax import datasets
from sgfr_jax.datasets import DatasetError


def listed(small):
    return datasets.load("folder", small.data_dir)


def test_images_are_kept_when_they_fit_and_read_again_when_not(small, monkeypatch):
    categories = listed(small)
    kept = loading.check(categories, small)
    monkeypatch.setattr(loading, "KEPT_BYTES", 0)
    not_kept = loading.check(categories, small)
    assert set(kept.loaded) == {"cap", "nut"} and not not_kept.loaded
    for category in categories:
        pairs = zip(
            loading.load(category, kept, small),
            loading.load(category, not_kept, small),
            strict=True,
        )
        for first, second in pairs:
            for a, b in zip(first, second, strict=True):
                np.testing.assert_array_equal(a.image, b.image)
                np.testing.assert_array_equal(a.mask, b.mask)


def test_a_truncated_image_is_named_or_skipped(small, folder, capsys):
    path = folder / "cap" / "train" / "good" / "2.png"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DatasetError, match=r"cap/train/good/2\.png.*--skip_bad_images"):
        loading.check(listed(small), small)
    skipping = dataclasses.replace(small, skip_bad_images=True)
    checked = loading.check(listed(small), skipping)
    assert [len(c.train) for c in checked.categories] == [4, 5]
    assert checked.notes == {"cap": ["1 bad images skipped"]}
    assert "2.png" in capsys.readouterr().err


def test_a_category_whose_training_images_are_all_bad(small, folder):
    for path in (folder / "cap" / "train" / "good").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DatasetError, match="category cap has no training image left"):
        loading.check(listed(small), dataclasses.replace(small, skip_bad_images=True))


def test_an_image_smaller_than_the_stride(small, folder):
    from PIL import Image

    Image.new("L", (6, 30)).save(folder / "nut" / "test" / "good" / "tiny.png")
    with pytest.raises(DatasetError, match=r"tiny\.png.*6 x 30 pixels; at least 8"):
        loading.check(listed(small), small)


def test_the_fingerprint_follows_the_files(small, folder):
    def fingerprints():
        return [loading.fingerprint(category) for category in listed(small)]

    before = fingerprints()
    assert before == fingerprints()
    (folder / "cap" / "test" / "good" / "0.png").unlink()
    after = fingerprints()
    assert before[0] != after[0] and before[1] == after[1]
