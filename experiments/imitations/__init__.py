"""Procedurally made products with defects of their own, one module each.

A product is a function `make(rng, kind) -> (image, mask)`: `rng`, a `numpy.random.Generator`, is
consumed; `kind` is one of the module's `KINDS`, or `None` for a nominal image; the image is uint8
`[SIDE, SIDE]` or `[SIDE, SIDE, 3]` and the mask bool `[SIDE, SIDE]`, or `None` for a nominal image.

Each product is rendered twice from the same draws, without and with the defect, and the mask is
where the two photographs differ visibly (`camera.photograph`). Nothing is shared with the defects
of the demo or with the synthetic ones, so that a choice made on those can be judged here.
"""
