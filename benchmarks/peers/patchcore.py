"""anomalib's Patchcore and Padim without Lightning, which would only add to their time."""

import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from anomalib.models.components.sampling import KCenterGreedy
from anomalib.models.image.padim.torch_model import PadimModel
from anomalib.models.image.patchcore.anomaly_map import AnomalyMapGenerator
from anomalib.models.image.patchcore.lightning_model import Patchcore
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from PIL import Image
from torch.nn import functional
from torchvision.transforms.v2 import functional as transforms

from benchmarks import timing
from benchmarks.peers import networks, threads

_BATCH = 16
_SIZE = 256
_MODELS = {"patchcore": PatchcoreModel, "padim": PadimModel}


def k_center(
    points: np.ndarray, num_atoms: int, num_steps: int
) -> Callable[[], timing.Extrapolated]:
    """Chooses a coreset, as far as `num_steps`; the rest is extrapolated from these steps."""
    threads.limit()
    points = torch.from_numpy(points)

    @torch.inference_mode()
    def sample():
        start = time.perf_counter()
        # Its loop, `select_coreset_idxs`, step by step.
        sampler = KCenterGreedy(points, sampling_ratio=num_atoms / len(points) + 1e-9)
        sampler.model.fit(points)
        sampler.features = sampler.model.transform(points)
        index, began = torch.tensor(0), time.perf_counter()
        for _ in range(num_steps):
            sampler.update_distances(cluster_center=index)
            index = sampler.get_new_idx()
            sampler.min_distances.scatter_(0, index.unsqueeze(0).unsqueeze(1), 0.0)
        step = (time.perf_counter() - began) / num_steps
        return timing.Extrapolated(
            began - start + step * (num_atoms - 1),
            {"seconds_per_step": step, "projected_to": sampler.features.shape[1]},
        )

    return sample


def fitter(
    kind: str, architecture: str, weights: str, layers: list[str], images: np.ndarray, ratio: float
) -> Callable[[], list[int]]:
    """Fits `kind`, 'patchcore' or 'padim', to uint8 images in memory.

    Returns:
      A function that returns the shape of what was fitted.
    """
    threads.limit()
    network = networks.Levels(networks.load(architecture, weights), layers)
    transform = Patchcore.configure_pre_processor((_SIZE, _SIZE)).transform
    pixels = torch.from_numpy(images)

    @torch.inference_mode()
    def fit():
        model = _with_network(kind, network)
        model.train()
        network.eval()
        for batch in pixels.split(_BATCH):
            model(transform(batch.permute(0, 3, 1, 2).float() / 255))
        if kind == "patchcore":
            model.subsample_embedding(ratio)
            return list(model.memory_bank.shape)
        model.fit()
        return list(model.gaussian.inv_covariance.shape)

    return fit


def scorer(atoms: np.ndarray, targets: np.ndarray) -> Callable[[], np.ndarray]:
    """Distances of patches of one image to a bank, and the image's score, from its features on."""
    threads.limit()
    model = PatchcoreModel(layers=["layer2"], backbone="resnet18", pre_trained=False).eval()
    model.memory_bank = torch.from_numpy(atoms)
    embedding = torch.from_numpy(targets)

    @torch.inference_mode()
    def score():
        scores, locations = model.nearest_neighbors(embedding=embedding, n_neighbors=1)
        model.compute_anomaly_score(scores.reshape(1, -1), locations.reshape(1, -1), embedding)
        return scores.numpy()

    return score


def mapper(scores: np.ndarray, size: int) -> Callable[[], np.ndarray]:
    """anomalib's map of a grid of scores `[B, h, w]`."""
    threads.limit()
    draw, grid = AnomalyMapGenerator(), torch.from_numpy(scores)[:, None]

    @torch.inference_mode()
    def run():
        return draw(grid, (size, size))[:, 0].numpy()

    return run


def bilinear_mapper(scores: np.ndarray, size: int) -> Callable[[], np.ndarray]:
    """The same with bilinear interpolation."""
    threads.limit()
    blur, grid = AnomalyMapGenerator().blur, torch.from_numpy(scores)[:, None]

    @torch.inference_mode()
    def run():
        large = functional.interpolate(grid, size=(size, size), mode="bilinear")
        return blur(large)[:, 0].numpy()

    return run


def pipeline(
    architecture: str,
    weights: str,
    layers: list[str],
    num_atoms: int,
    images: np.ndarray,
    lengths: list[int],
    nominal: np.ndarray,
) -> Callable[[], Any]:
    """Encoded images to maps: Pillow, anomalib's transforms, its Patchcore.

    Args:
      architecture: of the network.
      weights: a `.safetensors` file.
      layers: by our names; the first gives the grid.
      num_atoms: of the bank, a random choice of the nominal patches.
      images: the bytes of all encoded images.
      lengths: of each.
      nominal: uint8 `[B, S, S, 3]`.
    """
    threads.limit()
    transform = Patchcore.configure_pre_processor((_SIZE, _SIZE)).transform
    network = networks.Levels(networks.load(architecture, weights), layers)
    model = _with_network("patchcore", network)
    model.train()
    network.eval()
    with torch.inference_mode():
        for batch in torch.from_numpy(nominal).split(_BATCH):
            model(transform(batch.permute(0, 3, 1, 2).float() / 255))
    points = torch.vstack(model.embedding_store)
    model.embedding_store.clear()
    model.memory_bank = points[torch.randperm(len(points))[:num_atoms]]
    model.eval()
    encoded = [part.tobytes() for part in np.split(images, np.cumsum(lengths)[:-1])]

    @torch.inference_mode()
    def run():
        decoded = [Image.open(io.BytesIO(part)).convert("RGB") for part in encoded]
        batch = torch.stack(
            [
                transforms.to_dtype(transforms.to_image(image), torch.float32, scale=True)
                for image in decoded
            ]
        )
        return model(transform(batch)).anomaly_map[:, 0].numpy()

    return run


def _with_network(kind: str, network: networks.Levels) -> torch.nn.Module:
    """A model of anomalib's with another network in the place of its own, which is ResNet-18."""
    own = [level for level in network.levels if level.startswith("layer")] or ["layer2"]
    model = _MODELS[kind](layers=own, backbone="resnet18", pre_trained=False)
    model.layers, model.feature_extractor = network.levels, network
    return model
