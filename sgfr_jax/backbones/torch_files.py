"""torch's two file layouts, read without torch.

Legacy (`torch.save` before 1.6): a magic number, a protocol version, facts about the writer, the
object with its storages by reference and the list of storage keys, all pickles; then every
storage as a count and its bytes, always little-endian. Zip (since 1.6): the object in
`NAME/data.pkl` and each storage, uncompressed, in `NAME/data/KEY`, in the order of bytes that
`NAME/byteorder` names.

Every size is checked against the bytes that are there before anything of that size is made, and
tensors are views of the file's bytes, or of one copy of them in the machine's order: a file cannot
ask for more memory than it has itself.
"""

import io
import math
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from sgfr_jax.backbones import pickle_machine
from sgfr_jax.backbones.pickle_machine import FormatError, Function

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_MAX_DIMENSIONS = 16  # convolutions have 4
_MAX_COUNT = 2**40  # values; the product with any item's size is far from overflow


@dataclass(frozen=True, slots=True)
class _StorageType:
    dtype: np.dtype


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of values, still in the file."""

    key: str
    dtype: np.dtype
    start: int  # in values
    count: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage, still in the file; offset and strides count values of `dtype`."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


Contents = tuple[Any, Callable[[Tensor], np.ndarray]]


def is_zip(data: bytes) -> bool:
    """Whether a file begins as torch's newer layout does."""
    return data.startswith(b"PK\x03\x04")


def is_legacy(data: bytes) -> bool:
    """Whether a file begins as a pickle does."""
    return data.startswith(b"\x80")


def read_legacy(data: bytes) -> Contents:
    """Reads a file in the older layout.

    Args:
      data: the whole file.

    Returns:
      The object, with a `Tensor` for every tensor, and a function that makes an array of one.

    Raises:
      FormatError: the file is damaged, hostile, or not torch's.
    """
    stream, storages = io.BytesIO(data), {}
    if _load(stream, None) != _MAGIC_NUMBER:
        raise FormatError("is a pickle, but not one that torch.save wrote")
    if _load(stream, None) != _PROTOCOL_VERSION:
        raise FormatError("has an unknown version of torch's older layout")
    _load(stream, None)  # facts about the writer: the storages are little-endian whatever it was
    value = _load(stream, storages)
    keys = _load(stream, None)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise FormatError("is damaged: its list of storages is not one")

    view, position, buffers = memoryview(data), stream.tell(), {}
    for key in keys:
        if key not in storages:
            raise FormatError("is damaged: it holds a storage that no tensor uses")
        start = position + 8
        count = int.from_bytes(view[position:start], "little", signed=True)
        position = start + count * storages[key].itemsize
        if start > len(data) or count < 0 or position > len(data):
            raise FormatError("is truncated: it ends before its last storage does")
        buffers[key] = view[start:position]
    return value, lambda tensor: _materialize(tensor, buffers)


def read_zip(data: bytes) -> Contents:
    """Reads a file in the newer layout; see `read_legacy`."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename: info for info in archive.infolist()}
            if len(members) < len(archive.infolist()):
                raise FormatError("is damaged: two members of the archive share a name")
    except (zipfile.BadZipFile, *pickle_machine.DAMAGE, OSError, NotImplementedError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"is a damaged or truncated zip archive: {error}") from error
    roots = [name.removesuffix("/data.pkl") for name in members if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise FormatError("is a zip archive, but not one that torch.save wrote")
    (root,) = roots
    if f"{root}/constants.pkl" in members:
        raise FormatError("is a TorchScript program: save model.state_dict() instead")

    storages = {}
    value = _load(io.BytesIO(_member(data, members, f"{root}/data.pkl")), storages)
    buffers, total = {}, 0
    for key in storages:
        buffers[key] = _member(data, members, f"{root}/data/{key}")
        total += len(buffers[key])
        if total > len(data):
            raise FormatError("is damaged: members of the archive overlap")
    order = "little"
    if f"{root}/byteorder" in members:
        order = bytes(_member(data, members, f"{root}/byteorder")).decode("ascii", "replace")
    if order not in ("little", "big"):
        raise FormatError("is damaged: it names neither of the two orders of bytes")
    if order == "big":
        return value, _materialize_turned(buffers)
    return value, lambda tensor: _materialize(tensor, buffers)


def _member(data, members, name):
    """Returns a view of an uncompressed member's bytes."""
    if name not in members:
        raise FormatError(f"is damaged: the archive lacks {name[:120]!r}")
    info = members[name]
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        # torch never compresses, and a small file could unpack to any size.
        raise FormatError("is a compressed zip archive, which torch.save does not write")
    header = data[info.header_offset : info.header_offset + 30]
    if len(header) < 30 or not is_zip(header):
        raise FormatError("is a damaged zip archive: a member is not where it should be")
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    start = info.header_offset + 30 + lengths
    view = memoryview(data)[start : start + info.file_size]
    if len(view) < info.file_size or zlib.crc32(view) != info.CRC:
        raise FormatError(f"is damaged: the checksum of {name[:120]!r} is wrong")
    return view


def _load(stream, storages):
    """Reads a pickle; puts the type of every storage that it refers to into `storages`."""

    def persistent(reference):
        if storages is None:
            raise FormatError("is damaged: a tensor is where a plain value belongs")
        storage = _storage(reference)
        if storages.setdefault(storage.key, storage.dtype) != storage.dtype:
            raise FormatError("is damaged: one storage has two types")
        return storage

    return pickle_machine.load(stream, _NAMES, persistent)


def _storage(reference):
    if not isinstance(reference, tuple) or len(reference) not in (5, 6):
        raise FormatError("is damaged: a reference to a storage is not one")
    tag, kind, key, _, count = reference[:5]
    if tag != "storage" or not isinstance(kind, _StorageType) or not isinstance(key, str):
        raise FormatError("is damaged: a reference to a storage is not one")
    start = 0
    if len(reference) == 6 and reference[5] is not None:  # a part of a larger one
        _, start, count = reference[5]
    return Storage(key, kind.dtype, *_counts((start, count)))


def _rebuild_tensor(storage, offset, size, stride, *_):
    if not isinstance(storage, Storage):
        raise FormatError("is damaged: a tensor has no storage")
    return _tensor(storage, storage.dtype, offset, size, stride)


def _rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, *_):
    del requires_grad, hooks
    if not isinstance(storage, Storage) or not isinstance(dtype, np.dtype):
        raise FormatError("is damaged: a tensor has no storage or no type")
    return _tensor(storage, dtype, offset, size, stride)


def _rebuild_parameter(tensor, *_):
    if not isinstance(tensor, Tensor):
        raise FormatError("is damaged: a parameter is not a tensor")
    return tensor


def _tensor(storage, dtype, offset, size, stride):
    (offset,), shape, strides = _counts((offset,)), _counts(size), _counts(stride)
    if len(shape) != len(strides):
        raise FormatError("is damaged: the shape and the strides of a tensor do not fit")
    room = storage.count * storage.dtype.itemsize // dtype.itemsize
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if 0 not in shape and last >= room:
        raise FormatError("is damaged: a tensor reaches beyond its storage")
    # By strides of zero; a copy could be of any size.
    if math.prod(shape) > room:
        raise FormatError("holds a tensor that repeats values: call .contiguous() before saving")
    if math.prod(max(n, 1) for n in shape) > _MAX_COUNT:  # NumPy refuses even empty ones
        raise FormatError("is damaged: the shape of a tensor is larger than any memory")
    return Tensor(storage, dtype, offset, shape, strides)


def _counts(values):
    if not isinstance(values, tuple | list) or len(values) > _MAX_DIMENSIONS:
        raise FormatError("is damaged: a shape is not a list of a few whole numbers")
    if any(type(n) is not int or not 0 <= n < _MAX_COUNT for n in values):
        raise FormatError("is damaged: a size is negative or larger than any memory")
    return tuple(values)


def _materialize(tensor, buffers):
    """Returns a tensor as an array: a view of its storage's bytes."""
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, tensor.dtype)
    storage, size = tensor.storage, tensor.dtype.itemsize
    start = storage.start * storage.dtype.itemsize
    stop = start + storage.count * storage.dtype.itemsize
    buffer = buffers.get(storage.key, b"")
    if stop > len(buffer):
        raise FormatError("is damaged: a storage is shorter than its tensors need")
    strides = [step * size for step in tensor.strides]
    return np.ndarray(tensor.shape, tensor.dtype, buffer[start:stop], tensor.offset * size, strides)


def _materialize_turned(buffers):
    """Returns `_materialize` of buffers whose values have their bytes in the other order."""
    turned, widths = {}, {}

    def materialize(tensor):
        key, width = tensor.storage.key, tensor.dtype.itemsize
        if widths.setdefault(key, width) != width:
            raise FormatError("is damaged: one storage has two types")
        if key not in turned:  # once a storage: any number of tensors may be views of it
            copy = np.array(buffers[key])
            copy[: len(copy) - len(copy) % width].view(f"u{width}").byteswap(inplace=True)
            turned[key] = copy
        return _materialize(tensor, turned)

    return materialize


def _ordered_dict(items=None):
    # Python 2 gave the items here; since then they follow one by one.
    if items is not None and not isinstance(items, list):
        raise FormatError("is damaged: the items of a dictionary are not in a list")
    result = {}
    for key, value in items or []:
        if not isinstance(key, str):
            raise FormatError("is damaged: a name in a dictionary is not text")
        result[key] = value
    if items:
        # A list that many dictionaries ask for would become many copies of it.
        items.clear()
    return result


def _size(dimensions):
    return _counts(dimensions)


_BY_STORAGE = {
    "Double": np.float64,
    "Float": np.float32,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "Bool": np.bool_,
}
_BY_DTYPE = {
    **{np.dtype(dtype).name: dtype for dtype in _BY_STORAGE.values()},
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
}
_NAMES = {
    "collections OrderedDict": Function(_ordered_dict),
    "torch Size": Function(_size),
    "torch._utils _rebuild_tensor": Function(_rebuild_tensor),
    "torch._utils _rebuild_tensor_v2": Function(_rebuild_tensor),
    "torch._utils _rebuild_tensor_v3": Function(_rebuild_tensor_v3),
    "torch._utils _rebuild_parameter": Function(_rebuild_parameter),
    # This one counts bytes: the tensor says what they mean.
    "torch.storage UntypedStorage": _StorageType(np.dtype(np.uint8)),
    **{f"torch {n}Storage": _StorageType(np.dtype(d)) for n, d in _BY_STORAGE.items()},
    **{f"torch {name}": np.dtype(dtype) for name, dtype in _BY_DTYPE.items()},
}
