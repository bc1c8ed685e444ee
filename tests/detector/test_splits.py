import numpy as np
import pytest
from PIL import Image

from sgfr_jax.datasets import DatasetError, Example
from sgfr_jax.datasets.contents import content_hash
from sgfr_jax.datasets.geometry import Geometry
from sgfr_jax.detector import splits
from sgfr_jax.detector.services import PLAIN
from tests.detector import pretended


@pytest.fixture
def files(tmp_path, rng):
    """Images of which the second has a mask."""
    found = []
    for i, image in enumerate(pretended.images(rng, 3, (72, 80))):
        path, mask = tmp_path / f"{i}.png", tmp_path / f"{i}_mask.png"
        Image.fromarray(image).save(path)
        Image.fromarray(255 * (image > 150).astype(np.uint8)).save(mask)
        found.append(Example(path.name, path, int(i == 1), "good", mask if i == 1 else None))
    return tuple(found)


def split_of(examples):
    return splits.Split(examples, splits.hash_images(examples), None)


def test_squares_come_in_order_from_files_as_from_memory(files):
    split = split_of(files)
    read = list(splits.iterate(split, 64, 8))
    assert [one.image.shape for one in read] == [(64, 64, 3)] * 3
    # A nominal image has an empty mask; one with a defect its own.
    assert [bool(one.mask.any()) for one in read] == [False, True, False]
    kept = split._replace(kept=tuple(read))
    assert all(a is b for a, b in zip(splits.iterate(kept, 64, 8), read, strict=True))
    # What is kept at another size is read again.
    assert next(splits.iterate(kept, 32, 8)).image.shape == (32, 32, 3)
    arrays = splits.of_arrays([np.asarray(Image.open(e.image)) for e in files])
    for one, other in zip(read, splits.iterate(arrays, 64, 8), strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def test_a_bad_image_is_an_error_or_a_result(files):
    files[1].image.write_bytes(b"")
    split = split_of(files)
    found = dict(splits.read(split, 64, 8))
    assert isinstance(found[1], DatasetError) and found[2].image.shape == (64, 64, 3)
    with pytest.raises(DatasetError, match=r"1\.png"):
        list(splits.iterate(split, 64, 8))
    with pytest.raises(DatasetError, match=r"0\.png.*80 x 72 pixels; at least 75"):
        list(splits.iterate(split, 64, 75))


def test_some_of_a_split_in_every_way_that_it_is_looked_at(files):
    kinds = [Geometry("square"), Geometry("tile", tile=40, overlap=0.0)]
    laid = splits.laid(split_of(files), kinds)
    some = laid.take([2, 0])
    assert [e.name for e in some.examples] == ["2.png", "0.png"]
    assert some.hashes == (laid.hashes[2], laid.hashes[0])
    first, second = splits.looks(some)
    assert not first.also and first.windows is None
    assert second.windows == tuple(laid.also[0].windows[i] for i in (2, 0))
    assert splits.num_views(first) == 2 and splits.num_views(second) == 2 * 4


def test_hashes_follow_contents_and_what_is_read_as_white(files):
    hashes = splits.hash_images(files)
    assert len(set(hashes)) == 3 and hashes == splits.hash_images(files)
    assert hashes[0] == content_hash(files[0].image)
    dark = splits.hash_images([files[0]._replace(white=4095)])
    assert dark == (f"{hashes[0]} 4095",) and splits.of_contents(dark) == hashes[:1]
    assert splits.of_contents(split_of(files).hashes) == hashes


def test_the_fingerprint_follows_images_and_masks(files):
    before = splits.fingerprint(files, splits.hash_images(files))
    assert [row[:3] for row in before] == [[e.name, e.label, "good"] for e in files]
    assert [bool(mask) for *_, mask in before] == [False, True, False]
    Image.new("L", (80, 72), 255).save(files[1].mask)
    after = splits.fingerprint(files, splits.hash_images(files))
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_every_process_hashes_its_share(files):
    halves = []

    def joined(found):
        halves.append(found)
        return found

    for own in (range(2), range(2, 3)):
        services = PLAIN._replace(share=lambda num, own=own: own, joined=joined)
        splits.hash_all([example.image for example in files], services)
    first, second = halves
    assert (*first, *second) == splits.hash_images(files)


def test_content_hashes(tmp_path):
    one, two = np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8)
    assert content_hash(one) != content_hash(two)
    assert content_hash(None) == content_hash(tmp_path / "absent") == ""
