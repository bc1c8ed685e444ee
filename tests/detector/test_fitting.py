import jax.numpy as jnp

from sgfr_jax import types
from sgfr_jax.detector import detectors, fitting, looks


def test_what_is_fitted_to_a_look_is_found_again():
    def bank(number):
        return types.Bank(*[jnp.full(2, number)] * len(types.Bank._fields))

    origins = [detectors.no_origins(num) for num in (1, 2)]
    nominal = looks.Nominal(*[jnp.zeros(2)] * 4)
    several = looks.Several((bank(1), bank(2)), nominal, jnp.array([True, False]))
    fitted = detectors.Fitted({"nearest": several}, 4, [], detectors.Seconds(0, 0), tuple(origins))
    parts = fitting.apart(fitted)
    assert [int(part.states["nearest"].weights[0]) for part in parts] == [1, 2]
    assert [len(part.origins[0].images) for part in parts] == [1, 2]
    alone = fitted._replace(states={"nearest": bank(3)}, origins=tuple(origins[:1]))
    (part,) = fitting.apart(alone)
    assert part.states == alone.states and part.origins == alone.origins
