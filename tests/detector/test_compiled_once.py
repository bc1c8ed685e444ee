"""What has been traced and compiled for a method serves whoever uses an equal one again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sgfr_jax as sgfr

TRACED, COMPILED = "jaxpr_trace_duration", "backend_compile_duration"
SIZE = 32


def embed(state, images):
    """Two levels of a network that is none."""
    x = jnp.asarray(images, jnp.float32)

    def pooled(by):
        cells = x.reshape(len(x), x.shape[1] // by, by, x.shape[2] // by, by, 3).mean(axis=(2, 4))
        return jnp.sin(cells @ state[by])

    return {"fine": pooled(4), "coarse": pooled(8)}


def make_network():
    keys = jax.random.split(jax.random.key(5))
    state = {by: jax.random.normal(k, (3, 12)) for by, k in zip((4, 8), keys, strict=True)}
    return sgfr.make_network(
        embed, strides={"fine": 4, "coarse": 8}, widths={"fine": 12, "coarse": 12}, state=state
    )


@pytest.fixture
def events():
    """The durations that JAX tells of, by the last part of their names."""
    found = []

    def listen(name, seconds, **more):
        found.append(name.rsplit("/", 1)[-1])

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("method", [
    sgfr.Method.fast(image_size=SIZE, bank_size=20, num_neighbors=3),
    sgfr.Method(image_size=SIZE, bank_size=20, num_neighbors=3),
], ids=["one bank", "several"])  # fmt: skip
def test_nothing_is_traced_or_compiled_twice(method, events, rng):
    network = make_network()
    images = [rng.integers(0, 255, (SIZE, SIZE, 3)).astype(np.uint8) for _ in range(6)]

    def all_of_it(seed):
        """Fits, predicts, explains and grows, with other images and another key."""
        shifted = [np.roll(image, seed, axis=0) for image in images]
        detector = sgfr.fit_detector(
            jax.random.key(seed), shifted[:4], method=method, network=network
        )
        sgfr.predict(detector, shifted[4:])
        sgfr.explain(detector, shifted[4:])
        return sgfr.update(jax.random.key(seed), detector, shifted[4:])

    all_of_it(0)
    assert {COMPILED, TRACED} <= set(events)
    events.clear()
    again = all_of_it(1)
    assert again.about.notes
    assert events.count(COMPILED) == 0
    assert events.count(TRACED) == 0
