import dataclasses

import numpy as np
import pytest

from sgfr_jax.commands.files import cache
from sgfr_jax.commands.host import machine, progress
from sgfr_jax.commands.host.machine import Kept, Resources
from sgfr_jax.detector import embedding, splits, streams
from sgfr_jax.detector.services import PLAIN
from tests.detector import pretended

PLANNED = streams.plan(pretended.settled(layers=("fast",)), pretended.NETWORK)


def embedder(kept, loaded=None):
    def load(levels):
        if loaded is not None:
            loaded.append(levels)
        return pretended.NETWORK.load(levels)

    seen = dataclasses.replace(pretended.NETWORK, load=load)
    services = PLAIN._replace(batch_size=4, kept=kept)
    (made,) = embedding.make_embedders(seen, PLANNED, unit_norm=True, services=services)
    return made


def embed(kept, split, loaded=None):
    return np.concatenate([own for (own,) in embedder(kept, loaded).batches(split)])


@pytest.fixture
def split(rng):
    return pretended.split_of(pretended.images(rng, 10))


def test_services_are_those_that_resources_allow(tmp_path):
    resources = Resources(tmp_path, batch_size=5, workers=2, mesh="1")
    found = machine.services(resources)
    assert (found.batch_size, found.workers) == (5, 2)
    assert found.kept is None and found.progress is progress.bar
    keeping = machine.services(resources._replace(cache_dir=tmp_path / "cache", cache_bytes=9))
    assert keeping.kept == Kept(tmp_path / "cache", 9)


def test_nothing_is_embedded_twice(split, tmp_path):
    kept, loaded = Kept(tmp_path, 10**9), []
    made = embedder(kept)
    assert not machine.is_embedded(made, split.hashes)
    first = embed(kept, split, loaded)
    assert machine.is_embedded(made, split.hashes) and len(loaded) == 1
    np.testing.assert_array_equal(first, embed(kept, split, loaded))
    assert len(loaded) == 1
    # A damaged entry is made again.
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-9])
    np.testing.assert_array_equal(embed(kept, split, loaded), first)
    assert len(loaded) == 2 and machine.is_embedded(made, split.hashes)


def test_what_has_no_hash_or_no_place_is_not_embedded(split, tmp_path):
    assert not machine.is_embedded(embedder(None), split.hashes)
    arrays = splits.of_arrays([example.image for example in split.examples])
    embed(Kept(tmp_path, 10**9), arrays)
    assert not machine.is_embedded(embedder(Kept(tmp_path, 10**9)), arrays.hashes)
    assert not list(tmp_path.iterdir())


def test_an_entry_is_named_by_the_code_that_makes_it(split, monkeypatch, tmp_path):
    kept, described = Kept(tmp_path, 0), embedder(None).described(split.hashes)
    before = kept.name(described)
    assert kept.name(described | {"unit_norm": False}) != before
    with monkeypatch.context() as patch:
        patch.setattr(cache, "source_digest", lambda *parts: "of another version")
        assert kept.name(described) != before
    for part in machine._EMBEDDING:
        others = [other for other in machine._EMBEDDING if other is not part]
        with monkeypatch.context() as patch:
            patch.setattr(machine, "_EMBEDDING", others)
            assert kept.name(described) != before


def test_whatever_makes_embeddings_counts():
    # The rule of streams is in no other part of the name.
    assert {embedding, streams} <= set(machine._EMBEDDING)
