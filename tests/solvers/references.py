"""What every coder should find, worked out another way in float64: dense coefficients `[N, M]`."""

import warnings

import numpy as np
from scipy.optimize import nnls
from scipy.spatial.distance import cdist
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet, OrthogonalMatchingPursuit


def affine_ridge(target, support, *, ridge):
    """The constrained problem's own optimality conditions."""
    num = len(support)
    scale = np.mean(np.sum((target - support) ** 2, axis=1))
    system = np.zeros((num + 1, num + 1))
    system[:num, :num] = support @ support.T + ridge * scale * np.eye(num)
    system[num, :num] = system[:num, num] = 1
    return np.linalg.solve(system, np.append(support @ target, 1.0))[:num]


def ridge(target, support, *, ridge):
    """The least-squares problem with extra rows that it is."""
    num = len(support)
    penalty = ridge * np.mean(np.sum(support**2, axis=1))
    rows = np.vstack([support.T, np.sqrt(penalty) * np.eye(num)])
    return np.linalg.lstsq(rows, np.append(target, np.zeros(num)), rcond=None)[0]


def nearest(target, support):
    return np.eye(len(support))[0]


def nonnegative(target, support):
    return nnls(support.T, target)[0]


def elastic_net(target, support, *, l1, l2):
    """scikit-learn's, whose objective is ours divided by the number of features."""
    threshold = l1 * np.max(np.abs(support @ target))
    penalty = l2 * np.mean(np.sum(support**2, axis=1))
    total = threshold + penalty
    model = ElasticNet(
        alpha=total / len(target),
        l1_ratio=threshold / total,
        fit_intercept=False,
        max_iter=100_000,
        tol=1e-14,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(support.T, target).coef_


def omp(target, support, *, sparsity):
    """scikit-learn's on unit atoms, which is how it is told to choose as ours does."""
    norms = np.linalg.norm(support, axis=1)
    model = OrthogonalMatchingPursuit(n_nonzero_coefs=sparsity, fit_intercept=False)
    return model.fit((support / norms[:, None]).T, target).coef_ / norms


def project(target, atoms, *, rank):
    """The best least-squares fit of a basis to the target less the mean."""
    size, best = rank + 1, (np.inf, None)
    for first in range(0, len(atoms), size):
        mean, basis = atoms[first], atoms[first + 1 : first + size]
        along, *_ = np.linalg.lstsq(basis.T, target - mean, rcond=None)
        left = np.linalg.norm(target - mean - along @ basis)
        coefficients = np.zeros(len(atoms))
        coefficients[first], coefficients[first + 1 : first + size] = 1, along
        best = min(best, (left, coefficients), key=lambda found: found[0])
    return best[1]


def on_all(solve, targets, atoms):
    return np.stack([solve(target, atoms) for target in targets])


def on_nearest(solve, num_neighbors, targets, atoms):
    found = np.zeros((len(targets), len(atoms)))
    order = np.argsort(cdist(targets, atoms), axis=1)[:, :num_neighbors]
    for row, target, indices in zip(found, targets, order, strict=True):
        row[indices] = solve(target, atoms[indices])
    return found
