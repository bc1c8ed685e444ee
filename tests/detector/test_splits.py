import dataclasses

import numpy as np
import pytest
from PIL import Image

from sgfr_jax import datasets
from sgfr_jax.datasets import DatasetError
from sgfr_jax.detector import loading


def listed(small):
    return datasets.load("folder", small.data_dir)


def check(small, embedded=(), names=("cap", "nut"), **kwargs):
    categories = [category for category in listed(small) if category.name in names]
    hashes = {category.name: loading.hash_images(category.train) for category in categories}
    return loading.check(categories, small, hashes, embedded, **kwargs)


def test_images_are_kept_when_they_fit_and_read_again_when_not(small, monkeypatch):
    kept = check(small)
    monkeypatch.setattr(loading, "KEPT_BYTES", 0)
    not_kept = check(small)
    assert [category.name for category in kept] == ["cap", "nut"]
    for first, second in zip(kept, not_kept, strict=True):
        assert first.train.kept is not None and second.train.kept is None
        for split in ("train", "test"):
            pairs = zip(
                loading.iterate(getattr(first, split), small),
                loading.iterate(getattr(second, split), small),
                strict=True,
            )
            for a, b in pairs:
                np.testing.assert_array_equal(a.image, b.image)
                np.testing.assert_array_equal(a.mask, b.mask)


def test_worker_processes_read_the_same(small, folder, monkeypatch, capsys):
    (folder / "cap" / "train" / "good" / "2.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"cap/train/good/2\.png.*--skip_bad_images"):
        check(small, workers=1)
    skipping = dataclasses.replace(small, skip_bad_images=True)
    monkeypatch.setattr(loading, "KEPT_BYTES", 0)
    expected, found = (check(skipping, names=["cap"], workers=n)[0] for n in (0, 1))
    said = capsys.readouterr().err.splitlines()
    assert sum("skipped: " in line and "2.png" in line for line in said) == 2
    assert found._replace(train=None, test=None) == expected._replace(train=None, test=None)
    assert found.fingerprint() == expected.fingerprint()
    assert (found.test.workers, expected.test.workers) == (1, 0)
    pairs = zip(
        loading.iterate(found.test, small), loading.iterate(expected.test, small), strict=True
    )
    for a, b in pairs:
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.mask, b.mask)


def test_whether_a_mask_is_known_is_kept(small, folder, monkeypatch):
    monkeypatch.setattr(loading, "KEPT_BYTES", 0)
    (folder / "cap" / "ground_truth" / "dent" / "1_mask.png").unlink()
    cap = check(small)[0]
    known = [loaded.mask is not None for loaded in loading.iterate(cap.test, small)]
    assert known == [e.mask is not None or not e.label for e in cap.test.examples]
    assert sum(known) == len(known) - 1


def test_training_images_that_are_embedded_are_not_read(small, folder):
    hashes = loading.hash_images(listed(small)[0].train)
    path = folder / "cap" / "train" / "good" / "2.png"
    path.write_bytes(path.read_bytes()[:300])
    changed = loading.hash_images(listed(small)[0].train)
    assert [a == b for a, b in zip(hashes, changed, strict=True)] == [True, True, False, True, True]
    cap, nut = check(small, embedded={"cap"})
    assert len(cap.train.examples) == 5 and cap.train.kept is None
    assert nut.train.kept is not None and cap.test.kept is not None


def test_a_truncated_image_is_named_or_skipped(small, folder, capsys):
    path = folder / "cap" / "train" / "good" / "2.png"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DatasetError, match=r"cap/train/good/2\.png.*--skip_bad_images"):
        check(small)
    cap, nut = check(dataclasses.replace(small, skip_bad_images=True))
    assert [len(c.train.examples) for c in (cap, nut)] == [4, 5]
    assert len(cap.train.hashes) == len(cap.train.kept) == 4
    assert (cap.notes, nut.notes) == (("1 bad images skipped",), ())
    assert "2.png" in capsys.readouterr().err


def test_a_category_whose_training_images_are_all_bad(small, folder):
    for path in (folder / "cap" / "train" / "good").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DatasetError, match="category cap has no training image left"):
        check(dataclasses.replace(small, skip_bad_images=True))


def test_an_image_smaller_than_the_stride(small, folder):
    Image.new("L", (6, 30)).save(folder / "nut" / "test" / "good" / "tiny.png")
    with pytest.raises(DatasetError, match=r"tiny\.png.*6 x 30 pixels; at least 8"):
        check(small)


def test_an_image_that_goes_bad_after_the_check(small, folder, monkeypatch):
    monkeypatch.setattr(loading, "KEPT_BYTES", 0)
    cap = check(small)[0]
    (folder / "cap" / "train" / "good" / "1.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"1\.png"):
        list(loading.iterate(cap.train, small))


def test_the_fingerprint_follows_images_and_masks(small, folder):
    before = [category.fingerprint() for category in check(small)]
    assert before == [category.fingerprint() for category in check(small)]
    mask = folder / "cap" / "ground_truth" / "dent" / "0_mask.png"
    Image.new("L", (72, 72), 255).save(mask)
    after = [category.fingerprint() for category in check(small)]
    assert before[0] != after[0] and before[1] == after[1]


def test_content_hashes(tmp_path):
    one, two = np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8)
    assert loading.content_hash(one) != loading.content_hash(two)
    assert loading.content_hash(None) == loading.content_hash(tmp_path / "absent") == ""
