import numpy as np
import pytest
from PIL import Image

from sgfr_jax import datasets
from sgfr_jax.commands.files import reading
from sgfr_jax.datasets import DatasetError
from sgfr_jax.detector import splits
from sgfr_jax.detector.services import PLAIN


def listed(small):
    return datasets.load("folder", small.data.data_dir)


def check(small, embedded=(), names=("cap", "nut"), services=PLAIN):
    categories = [category for category in listed(small) if category.name in names]
    hashes = {category.name: splits.hash_images(category.train) for category in categories}
    return reading.check(categories, small, hashes, embedded, services)


def squares(split, workers=0):
    return splits.iterate(split, 64, 8, workers=workers)


def test_images_are_kept_when_they_fit_and_read_again_when_not(small, monkeypatch):
    kept = check(small)
    monkeypatch.setattr(reading, "KEPT_BYTES", 0)
    not_kept = check(small)
    assert [category.name for category in kept] == ["cap", "nut"]
    for first, second in zip(kept, not_kept, strict=True):
        assert first.train.kept is not None and second.train.kept is None
        for split in ("train", "test"):
            pairs = zip(
                squares(getattr(first, split)),
                squares(getattr(second, split)),
                strict=True,
            )
            for a, b in pairs:
                np.testing.assert_array_equal(a.image, b.image)
                np.testing.assert_array_equal(a.mask, b.mask)


def test_worker_processes_read_the_same(small, folder, monkeypatch, capsys):
    (folder / "cap" / "train" / "good" / "2.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"cap/train/good/2\.png.*--skip_bad_images"):
        check(small, services=PLAIN._replace(workers=1))
    skipping = small.replace(skip_bad_images=True)
    monkeypatch.setattr(reading, "KEPT_BYTES", 0)
    expected, found = (
        check(skipping, names=["cap"], services=PLAIN._replace(workers=n))[0] for n in (0, 1)
    )
    said = capsys.readouterr().err.splitlines()
    assert sum("skipped: " in line and "2.png" in line for line in said) == 2
    assert found._replace(train=None, test=None) == expected._replace(train=None, test=None)
    assert found.fingerprint(PLAIN) == expected.fingerprint(PLAIN)
    for a, b in zip(squares(found.test, workers=1), squares(expected.test), strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.mask, b.mask)


def test_whether_a_mask_is_known_is_kept(small, folder, monkeypatch):
    monkeypatch.setattr(reading, "KEPT_BYTES", 0)
    (folder / "cap" / "ground_truth" / "dent" / "1_mask.png").unlink()
    cap = check(small)[0]
    known = [loaded.mask is not None for loaded in squares(cap.test)]
    assert known == [e.mask is not None or not e.label for e in cap.test.examples]
    assert sum(known) == len(known) - 1


def test_training_images_that_are_embedded_are_not_read(small, folder):
    hashes = splits.hash_images(listed(small)[0].train)
    path = folder / "cap" / "train" / "good" / "2.png"
    path.write_bytes(path.read_bytes()[:300])
    changed = splits.hash_images(listed(small)[0].train)
    assert [a == b for a, b in zip(hashes, changed, strict=True)] == [True, True, False, True, True]
    cap, nut = check(small, embedded={"cap"})
    assert len(cap.train.examples) == 5 and cap.train.kept is None
    assert nut.train.kept is not None and cap.test.kept is not None


def test_a_truncated_image_is_named_or_skipped(small, folder, capsys):
    path = folder / "cap" / "train" / "good" / "2.png"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DatasetError, match=r"cap/train/good/2\.png.*--skip_bad_images"):
        check(small)
    cap, nut = check(small.replace(skip_bad_images=True))
    assert [len(c.train.examples) for c in (cap, nut)] == [4, 5]
    assert len(cap.train.hashes) == len(cap.train.kept) == 4
    assert (cap.notes, nut.notes) == (("1 bad images skipped",), ())
    assert "2.png" in capsys.readouterr().err


def test_a_category_whose_training_images_are_all_bad(small, folder):
    for path in (folder / "cap" / "train" / "good").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DatasetError, match="category cap has no training image left"):
        check(small.replace(skip_bad_images=True))


def test_an_image_smaller_than_the_stride(small, folder):
    Image.new("L", (6, 30)).save(folder / "nut" / "test" / "good" / "tiny.png")
    with pytest.raises(DatasetError, match=r"tiny\.png.*6 x 30 pixels; at least 8"):
        check(small)


def test_an_image_that_goes_bad_after_the_check(small, folder, monkeypatch):
    monkeypatch.setattr(reading, "KEPT_BYTES", 0)
    cap = check(small)[0]
    (folder / "cap" / "train" / "good" / "1.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"1\.png"):
        list(squares(cap.train))


def test_the_fingerprint_follows_images_and_masks(small, folder):
    before = [category.fingerprint(PLAIN) for category in check(small)]
    assert before == [category.fingerprint(PLAIN) for category in check(small)]
    mask = folder / "cap" / "ground_truth" / "dent" / "0_mask.png"
    Image.new("L", (72, 72), 255).save(mask)
    after = [category.fingerprint(PLAIN) for category in check(small)]
    assert before[0] != after[0] and before[1] == after[1]


def test_ways_of_looking_that_come_to_the_same_are_one_and_differing_ones_are_noted(small):
    alike, _ = check(small.replace(geometry="square+tile"))
    assert [geometry.kind for geometry in alike.geometries] == ["square"]
    assert alike.looks() == [alike] and not alike.notes
    tiles = small.replace(layers=("auto",), geometry="auto", grid=0)
    path = small.data.data_dir + "/cap/train/good/{}.png"
    for i in range(3):
        Image.new("L", (72, 120 + 30 * i)).save(path.format(i))
    cap, nut = check(tiles)
    assert cap.notes == ("training images are long, or differ in size or shape: looked at as"
                         " --geometry=square+tile",)  # fmt: skip
    assert [geometry.kind for geometry in cap.geometries] == ["square", "tile"]
    assert [look.name for look in cap.looks()] == ["cap (square)", "cap (tile)"]
    first, second = cap.looks()
    assert first.test.windows is None and second.train.windows is not None
    assert first.geometries + second.geometries == cap.geometries
    assert nut.looks() == [nut] and not nut.train.also
