"""Points on subspaces that are known, and how far a learner's answer is from them."""

import itertools

import numpy as np


def union(rng, *, num_subspaces, rank, num_features, each, noise=0.0, offset=0.0):
    """Points `[N, D]`, their labels `[N]`, the bases `[S, R, D]` and the means `[S, D]`."""
    frames = [
        np.linalg.qr(rng.normal(size=(num_features, rank)))[0].T for _ in range(num_subspaces)
    ]
    means = offset * rng.normal(size=(num_subspaces, num_features))
    clouds = [
        mean + rng.normal(size=(each, rank)) @ frame
        for frame, mean in zip(frames, means, strict=True)
    ]
    points = np.concatenate(clouds) + noise * rng.normal(size=(num_subspaces * each, num_features))
    return points, np.repeat(np.arange(num_subspaces), each), np.array(frames), means


def accuracy(labels, planted):
    """The share of labels that agree under the best renaming."""
    labels, num = np.asarray(labels), planted.max() + 1
    return max(
        np.mean(np.array(names)[labels] == planted) for names in itertools.permutations(range(num))
    )


def plain_objective(points, labels, rank, affine):
    """The least squared residual of every cluster, by singular values, in float64."""
    total = 0.0
    for label in np.unique(labels):
        members = points[labels == label]
        members = members - members.mean(axis=0) if affine else members
        total += np.sum(np.linalg.svd(members, compute_uv=False)[rank:] ** 2)
    return total


def squared_residuals(points, bases, means):
    """Squared distances of all points to all subspaces, in float64."""
    bases, means = np.asarray(bases, np.float64), np.asarray(means, np.float64)
    distances = []
    for basis, mean in zip(bases, means, strict=True):
        centred = points - mean
        distances.append(np.sum((centred - centred @ basis.T @ basis) ** 2, axis=1))
    return np.stack(distances, axis=1)


def is_orthonormal(basis, rank):
    """Whether the first `rank` rows are orthonormal and the others zero."""
    basis = np.asarray(basis)
    return np.allclose(basis @ basis.T, np.diag(np.arange(len(basis)) < rank), atol=1e-5)
