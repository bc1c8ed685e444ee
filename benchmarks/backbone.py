"""Networks from uint8 images to their feature maps, against torch.

Lite0 to stride 32, ResNet-18 and Wide ResNet-50-2 to layer3, at 256 pixels. Both start from the
same uint8 images and the same weights, and return the levels that a bank is made of. torch runs
timm's and torchvision's modules eagerly, with batch norms folded, channels last, in inference mode.

    taskset -c 0 python -m benchmarks.backbone --peers=.venv-peers/bin/python
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import jax
import numpy as np

from benchmarks import machine, materials, report, timing, workers
from sgfr_jax import backbones
from sgfr_jax.backbones import architectures

_NETWORKS = ("efficientnet_lite0", "resnet18", "wide_resnet50_2")
_FLOAT = 4  # bytes


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this benchmark."""
    parser.add_argument("--networks", nargs="+", default=_NETWORKS, choices=_NETWORKS)
    parser.add_argument("--batches", nargs="+", type=int, default=(1, 16))
    parser.add_argument("--image_size", type=int, default=256)


def measure(options: argparse.Namespace, peers: workers.Peers) -> list[report.Row]:
    """Measures every network at every batch size."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.networks:
            path = Path(folder, f"{name}.safetensors")
            materials.write_weights(name, path)
            backbone = backbones.load(name, path)
            embed = partial(jax.jit(backbone.embed), backbone.state)
            for batch in options.batches:
                images = materials.photographs(batch, options.image_size)
                given = {
                    "architecture": name,
                    "weights": str(path),
                    "images": images,
                    "levels": list(backbone.levels),
                    "mean": list(backbone.architecture.mean),
                    "std": list(backbone.architecture.std),
                }
                contenders = {
                    report.OURS: timing.contender(_call(embed, images)),
                    **peers.contender("torch", "networks:embedder", **given),
                }
                timed = timing.alternate(contenders, repeats=options.repeats)
                found += report.rows(
                    f"{name} to {backbone.levels[-1]}, batch {batch}, per image",
                    timed,
                    per=batch,
                    work=work(backbone.architecture, backbone.levels, options.image_size, batch),
                    values=_values(timed, backbone.levels),
                )
                peers.forget()
    return found


def work(
    architecture: architectures.Architecture, levels: tuple[str, ...], size: int, batch: int
) -> machine.Work:
    """What one image of a batch costs, up to the deepest level.

    The convolutions' arithmetic; the weights (shared by the batch), the image and the levels read
    or written once. Activations in between could stay in a cache.
    """
    blocks = architecture.blocks[: architectures.blocks_needed(architecture, levels)]
    lite = architecture.family == "efficientnet_lite"
    kernel, width = (3 if lite else 7), architecture.widths["stem"]
    # Each convolution as (weights, output pixels).
    convolutions = [(kernel**2 * 3 * width, _cells(size, 2))]
    stride = architecture.strides["stem"]
    for block in blocks:
        before, after = _cells(size, stride), _cells(size, stride * block.stride)
        stride *= block.stride
        square, inner = block.kernel**2, block.inner
        if lite:
            if inner != block.inputs:
                convolutions.append((block.inputs * inner, before))
            convolutions.append((square * inner, after))
            convolutions.append((inner * block.outputs, after))
            continue
        if architecture.bottleneck:
            convolutions.append((block.inputs * inner, before))
            convolutions.append((square * inner * inner, after))
            convolutions.append((inner * block.outputs, after))
        else:
            convolutions.append((square * block.inputs * inner, after))
            convolutions.append((square * inner * block.outputs, after))
        if block.stride > 1 or block.inputs != block.outputs:
            convolutions.append((block.inputs * block.outputs, after))
    weights = sum(count for count, _ in convolutions)
    outputs = sum(
        architecture.widths[level] * _cells(size, architecture.strides[level]) for level in levels
    )
    return machine.Work(
        flops=2.0 * sum(count * cells for count, cells in convolutions),
        bytes=_FLOAT * (weights / batch + outputs) + 3 * size**2,
    )


def _call(embed, images):
    placed = jax.device_put(images)
    return lambda: jax.block_until_ready(embed(placed))


def _cells(size: int, stride: int) -> int:
    return (-(-size // stride)) ** 2


def _values(timed, levels):
    """How far the peer's deepest level is from ours, relative to its largest value."""
    ours = np.asarray(timed[report.OURS].value[levels[-1]])
    return {
        who: {"relative_difference": float(np.abs(found.value - ours).max() / np.abs(ours).max())}
        for who, found in timed.items()
        if who != report.OURS
    }


if __name__ == "__main__":
    report.run(measure, __doc__, add_flags=add_flags)
