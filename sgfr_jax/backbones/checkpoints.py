"""Weight files as dictionaries of NumPy arrays; whatever is wrong with a file is a WeightsError."""

import hashlib
import os
import stat
from typing import NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from sgfr_jax.backbones import torch_files

# The largest network here has 1.2 gigabytes of weights.
_MAX_BYTES = 4 << 30
# Where training scripts put the weights in a larger dictionary, the smoothed ones first.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
# What torch's DataParallel and AveragedModel, and its compile, put before every name.
_PREFIXES = ("module.", "_orig_mod.")
_MAX_PREFIXES = 4  # a name can be nothing but prefixes
_COUNTER = "n_averaged"  # which AveragedModel has beside its model
_SAFETENSORS_DTYPES = {
    **{"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16},
    **{"I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8},
    **{"U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_},
}
_STARTS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the weights: run `git lfs pull`",
    b"<": "is a web page, not weights: the download failed",
}


class WeightsError(ValueError):
    """Weights that are missing, damaged, hostile, or of another network."""


class Checkpoint(NamedTuple):
    """What a weight file holds."""

    arrays: dict[str, np.ndarray]  # by name; views of one buffer where the format allows it
    digest: str  # SHA-256 of the file, in hexadecimal


def read(path: str | os.PathLike) -> Checkpoint:
    """Reads a `.pth` file in either of torch's layouts, or a `.safetensors` file.

    The content decides which it is, not the extension. Nothing in the file is executed.

    Args:
      path: the file.

    Returns:
      The arrays, taken out of `{"state_dict": ...}` and the like, and the file's digest.

    Raises:
      WeightsError: the file cannot be read, or holds no tensors; the message names it.
    """
    data = _read_bytes(path)
    try:
        arrays = _arrays(data)
    except (torch_files.FormatError, safetensors.SafetensorError) as error:
        raise WeightsError(f"weights file {os.fspath(path)!r} {error}") from error
    return Checkpoint(arrays, hashlib.sha256(data).hexdigest())


def digest(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a file, in hexadecimal; raises WeightsError if it cannot be read."""
    return hashlib.sha256(_read_bytes(path)).hexdigest()


def _read_bytes(path):
    name = os.fspath(path)
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise WeightsError(f"weights {name!r} is a directory, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise WeightsError(f"weights {name!r} is not a regular file")
        if status.st_size == 0:
            raise WeightsError(f"weights file {name!r} is empty")
        if status.st_size > _MAX_BYTES:
            raise WeightsError(f"weights file {name!r} is larger than any network known here")
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise WeightsError(f"weights file {name!r} does not exist") from error
    except (OSError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"weights file {name!r} cannot be read: {error}") from error


def _arrays(data):
    # First, since the header's length, which comes first, can look like any of the other starts.
    if data[8:9] == b"{" and data[5:8] == bytes(3):
        return _strip_prefixes(_safetensors(data))
    for start, message in _STARTS.items():
        if data.startswith(start):
            raise torch_files.FormatError(message)
    if torch_files.is_zip(data):
        return _tensors(*torch_files.read_zip(data))
    if torch_files.is_legacy(data):
        return _tensors(*torch_files.read_legacy(data))
    raise torch_files.FormatError(
        "is neither a torch checkpoint (.pth) nor a .safetensors file, or its beginning is damaged"
    )


def _safetensors(data):
    # The package's own NumPy reader knows no bfloat16.
    arrays = {}
    for name, part in safetensors.deserialize(data):
        if part["dtype"] not in _SAFETENSORS_DTYPES:
            raise torch_files.FormatError(f"holds {name!r} in the unknown type {part['dtype']}")
        flat = np.frombuffer(part["data"], _SAFETENSORS_DTYPES[part["dtype"]])
        try:
            arrays[name] = flat.reshape(part["shape"])
        except ValueError as error:  # of more dimensions than NumPy has, or huge and empty
            message = f"holds {name!r} in an impossible shape: {error}"
            raise torch_files.FormatError(message) from error
    return arrays


def _tensors(value, materialize):
    """Finds the weights in what a torch file holds and makes arrays of them."""
    if not isinstance(value, dict):
        raise torch_files.FormatError("holds no dictionary of weights: save model.state_dict()")
    places = [*(value.get(wrapper) for wrapper in _WRAPPERS), value]
    for place in (place for place in places if isinstance(place, dict)):
        tensors = {
            name: tensor
            for name, tensor in place.items()
            if isinstance(name, str) and isinstance(tensor, torch_files.Tensor)
        }
        if tensors:
            return _strip_prefixes({name: materialize(t) for name, t in tensors.items()})
    raise torch_files.FormatError(
        f"holds no weights, neither by themselves nor under {', '.join(_WRAPPERS)}: save"
        " model.state_dict()"
    )


def _strip_prefixes(arrays):
    for _ in range(_MAX_PREFIXES):
        names = [name for name in arrays if name != _COUNTER]
        for prefix in _PREFIXES:
            if names and all(name.startswith(prefix) for name in names):
                arrays = {name.removeprefix(prefix): arrays[name] for name in names}
                break
    return arrays
