"""Writes torch's files without torch, honest and hostile ones, from a notation for pickles."""

import io
import pickle
import struct
import zipfile
from typing import NamedTuple

import numpy as np

MAGIC_NUMBER, PROTOCOL_VERSION = 0x1950A86A20F9469CFC6C, 1001
_STORAGES = {"float32": "FloatStorage", "float64": "DoubleStorage", "int64": "LongStorage"}


class Name(NamedTuple):
    """A global, as `module name`."""

    name: str


class Call(NamedTuple):
    """A function of the pickle's choosing and its arguments."""

    function: Name
    arguments: tuple


class Built(NamedTuple):
    """An object that is given a state."""

    value: object
    state: object


class Persistent(NamedTuple):
    """A reference to something outside of the pickle."""

    reference: tuple


def encode(value):
    """Returns the instructions that make a value."""
    match value:
        case Name():
            return b"c" + value.name.replace(" ", "\n").encode() + b"\n"
        case Call():
            return encode(value.function) + encode(value.arguments) + b"R"
        case Built():
            return encode(value.value) + encode(value.state) + b"b"
        case Persistent():
            return encode(value.reference) + b"Q"
        case tuple():
            return b"(" + b"".join(map(encode, value)) + b"t"
        case list():
            return b"](" + b"".join(map(encode, value)) + b"e"
        case dict():
            items = (encode(key) + encode(item) for key, item in value.items())
            return b"}(" + b"".join(items) + b"u"
        case bool() | None:
            return {True: b"\x88", False: b"\x89", None: b"N"}[value]
        case int():
            number = pickle.encode_long(value)
            return b"\x8a" + bytes([len(number)]) + number
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    raise TypeError(type(value))


def pickled(value):
    """Returns a whole pickle of protocol 2."""
    return b"\x80\x02" + encode(value) + b"."


def tensor(key, shape, *, dtype="float32", strides=None, offset=0, count=None, rebuild=None):
    """Returns the notation for a tensor over the storage `key`."""
    if strides is None:
        strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    count = int(np.prod(shape)) if count is None else count
    storage = Persistent(("storage", Name(f"torch {_STORAGES[dtype]}"), key, "cpu", count))
    hooks = Call(Name("collections OrderedDict"), ())
    rebuild = rebuild or Name("torch._utils _rebuild_tensor_v2")
    return Call(rebuild, (storage, offset, shape, strides, False, hooks))


def legacy_file(value, storages):
    """Returns a file in the older layout; `storages` maps a key to `(count, bytes)`."""
    facts = {"protocol_version": 1001, "little_endian": True}
    parts = [pickled(part) for part in (MAGIC_NUMBER, PROTOCOL_VERSION, facts, value)]
    parts.append(pickled(list(storages)))
    parts += [struct.pack("<q", count) + data for count, data in storages.values()]
    return b"".join(parts)


def zip_file(value, storages, *, compression=zipfile.ZIP_STORED, byteorder=None):
    """Returns a file in the newer layout; `storages` is as above."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled(value))
        if byteorder:
            archive.writestr("archive/byteorder", byteorder)
        for key, (_, data) in storages.items():
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def state_dict(arrays):
    """Returns the notation for a state dict of arrays, and its storages."""
    tensors = {
        name: tensor(str(i), array.shape, dtype=str(array.dtype))
        for i, (name, array) in enumerate(arrays.items())
    }
    storages = {str(i): (a.size, a.tobytes()) for i, a in enumerate(arrays.values())}
    return tensors, storages
