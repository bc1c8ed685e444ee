import io
import pathlib
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sgfr_jax.backbones import checkpoints
from sgfr_jax.backbones.checkpoints import WeightsError
from tests.backbones import pth_writer
from tests.backbones.pth_writer import Built, Call, Name, Persistent, tensor

GOLDEN = pathlib.Path(__file__).parent / "golden"
WRAPPERS = ["state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", None]
LAYOUTS = {"legacy": pth_writer.legacy_file, "zip": pth_writer.zip_file}


@pytest.fixture
def write(tmp_path):
    path = tmp_path / "weights.pth"

    def write(data):
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reads_what_torch_wrote(layout):
    arrays, digest = checkpoints.read(GOLDEN / f"{layout}.pth")
    assert len(digest) == 64
    types = {name: str(array.dtype) for name, array in arrays.items()}
    assert types["half"] == "float16" and types["bfloat16"] == "bfloat16"
    assert types["long"] == "int64" and types["bool"] == "bool" and types["uint16"] == "uint16"
    with np.load(GOLDEN / "expected.npz") as expected:
        assert list(arrays) == list(expected)
        for name in expected:
            np.testing.assert_array_equal(arrays[name].astype(expected[name].dtype), expected[name])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_beginning_of_a_file_is_read(layout, write):
    data = (GOLDEN / f"{layout}.pth").read_bytes()
    for stop in [*range(0, len(data), 37), len(data) - 1]:
        with pytest.raises(WeightsError, match=r"weights\.pth"):
            checkpoints.read(write(data[:stop]))


# pickletools warns of odd escapes in protocol 0's strings.
@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_flipped_byte_is_an_error_or_other_values(layout, write):
    data = (GOLDEN / f"{layout}.pth").read_bytes()
    for position in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[position] ^= 0x15
        try:
            checkpoints.read(write(bytes(damaged)))
        except WeightsError as error:
            assert "weights.pth" in str(error)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    start=st.sampled_from([b"", b"PK\x03\x04", pth_writer.pickled(pth_writer.MAGIC_NUMBER)]),
    noise=st.binary(min_size=1, max_size=300),
)
def test_noise_is_an_error(start, noise, write):
    with pytest.raises(WeightsError, match=r"weights\.pth"):
        checkpoints.read(write(start + noise))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.sampled_from([bytes([op]) for op in b"()]}tleausbRQ012.NKq\x85\x86\x94Xc\x93"])))
def test_any_program_ends_in_an_error(write, program):
    body = b"\x80\x02" + b"".join(program)
    with pytest.raises(WeightsError, match=r"weights\.pth"):
        checkpoints.read(write(zip_with_pickle(body)))


def zip_with_pickle(body):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", body)
    return buffer.getvalue()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.module.", ""])
def test_weights_are_unwrapped(layout, wrapper, prefix, write):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.float32([1, 2])}
    tensors, storages = pth_writer.state_dict({prefix + k: v for k, v in arrays.items()})
    value = {"epoch": 3, wrapper: tensors} if wrapper else tensors
    read = checkpoints.read(write(LAYOUTS[layout](value, storages))).arrays
    assert list(read) == ["a", "b"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)


def test_smoothed_weights_come_first(write):
    storages = {"0": (1, b"\0" * 4), "1": (1, struct.pack("<f", 2))}
    plain, smoothed = ({"a": tensor(key, (1,))} for key in "01")
    for names in (("state_dict", "state_dict_ema"), ("model", "model_ema")):
        value = dict(zip(names, (plain, smoothed), strict=True))
        assert checkpoints.read(write(pth_writer.zip_file(value, storages))).arrays["a"] == 2
    value = {"state_dict_ema": {}, "model": smoothed}
    assert checkpoints.read(write(pth_writer.zip_file(value, storages))).arrays["a"] == 2


def test_an_averaged_model_is_counted_beside_its_weights(write):
    arrays = {"module.a": np.float32([1, 2]), "n_averaged": np.int64(5), "module.b": np.ones(3)}
    for prefix in ("", "_orig_mod."):
        named = {prefix + name: array for name, array in arrays.items()}
        tensors, storages = pth_writer.state_dict(named)
        read = checkpoints.read(write(pth_writer.zip_file({"model_ema": tensors}, storages)))
        assert list(read.arrays) == ["a", "b"]


def test_a_prefix_of_some_names_is_a_part_of_them(write):
    for names in (["module.a", "b"], ["module.a", "_orig_mod.b"], ["n_averaged", "module"]):
        tensors, storages = pth_writer.state_dict({name: np.ones(1) for name in names})
        assert list(checkpoints.read(write(pth_writer.zip_file(tensors, storages))).arrays) == names


def test_names_of_nothing_but_prefixes_take_no_time(write):
    name = "module." * 100_000
    tensors, storages = pth_writer.state_dict({name: np.ones(1)})
    (read,) = checkpoints.read(write(pth_writer.zip_file(tensors, storages))).arrays
    assert len(name) - len(read) < 100


def test_big_endian_values_are_turned_round(write):
    values = np.float32([1, -2.5, 3e7])
    tensors, _ = pth_writer.state_dict({"a": values})
    data = pth_writer.zip_file(tensors, {"0": (3, values.astype(">f4").tobytes())}, byteorder="big")
    np.testing.assert_array_equal(checkpoints.read(write(data)).arrays["a"], values)


def test_values_turned_round_are_as_many_as_the_file_has(write):
    values = np.arange(7, dtype=np.float32)
    tensors = {str(i): tensor("0", (6,), offset=1, count=7) for i in range(50)}
    data = pth_writer.zip_file(tensors, {"0": (7, values.astype(">f4").tobytes())}, byteorder="big")
    arrays = checkpoints.read(write(data)).arrays
    for array in arrays.values():
        np.testing.assert_array_equal(array, values[1:])
        assert np.shares_memory(array, arrays["0"])


def test_values_of_two_sizes_are_not_turned_round(write):
    untyped = Persistent(("storage", Name("torch.storage UntypedStorage"), "0", "cpu", 8))
    tensors = {
        dtype: Call(
            Name("torch._utils _rebuild_tensor_v3"),
            (untyped, 0, (2,), (1,), False, {}, Name(f"torch {dtype}")),
        )
        for dtype in ("uint16", "uint32")
    }
    data = pth_writer.zip_file(tensors, {"0": (8, bytes(8))}, byteorder="big")
    with pytest.raises(WeightsError, match="one storage has two types"):
        checkpoints.read(write(data))


def test_a_part_of_a_storage_counts_from_its_own_start(write):
    values = np.arange(8, dtype=np.float32)
    part = Persistent(("storage", Name("torch FloatStorage"), "0", "cpu", 8, ("0.part", 2, 4)))
    hooks = Call(Name("collections OrderedDict"), ())
    rebuild = Name("torch._utils _rebuild_tensor_v2")
    value = {"a": Call(rebuild, (part, 1, (3,), (1,), False, hooks))}
    data = pth_writer.legacy_file(value, {"0": (8, values.tobytes())})
    np.testing.assert_array_equal(checkpoints.read(write(data)).arrays["a"], values[3:6])


def test_what_torch_of_python_2_wrote_is_read(write):
    """Dictionaries with their items as an argument, tensors by the first function for them."""
    values = np.arange(6, dtype=np.float32)
    storage = Persistent(("storage", Name("torch FloatStorage"), "0", "cuda:0", 6, None))
    first = Call(Name("torch._utils _rebuild_tensor"), (storage, 0, (2, 3), (3, 1)))
    items = [["a", first], ["b", tensor("0", (2,), offset=4, count=6)]]
    value = {"state_dict": Call(Name("collections OrderedDict"), (items,))}
    read = checkpoints.read(write(pth_writer.legacy_file(value, {"0": (6, values.tobytes())})))
    np.testing.assert_array_equal(read.arrays["a"], values.reshape(2, 3))
    np.testing.assert_array_equal(read.arrays["b"], [4, 5])


HOSTILE_CALLS = {
    "os.system": Call(Name("os system"), ("touch {canary}",)),
    "posix.system": Call(Name("posix system"), ("touch {canary}",)),
    "builtins.eval": Call(Name("builtins eval"), ("open('{canary}', 'w')",)),
    "builtins.getattr": Call(Name("builtins getattr"), (Name("collections OrderedDict"), "pop")),
    "torch._utils.os.system": Call(Name("torch._utils os.system"), ("touch {canary}",)),
    "torch.nn.modules.linear.Linear": Call(Name("torch.nn.modules.linear Linear"), (3, 3)),
    "argparse.Namespace": Built(Call(Name("argparse Namespace"), ()), {"lr": 1}),
    "copyreg._reconstructor": Call(Name("copyreg _reconstructor"), ()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", HOSTILE_CALLS)
def test_no_other_class_or_function_is_reached(layout, name, write, tmp_path):
    canary = tmp_path / "canary"
    call = HOSTILE_CALLS[name]
    if isinstance(call, Call) and isinstance(call.arguments[:1], tuple):
        arguments = tuple(
            a.format(canary=canary) if isinstance(a, str) else a for a in call.arguments
        )
        call = Call(call.function, arguments)
    with pytest.raises(WeightsError) as error:
        checkpoints.read(write(LAYOUTS[layout]({"a": call}, {})))
    assert not canary.exists()
    assert name in str(error.value) and "state_dict()" in str(error.value)


def test_state_given_to_a_function_changes_nothing(write):
    before = dict(vars(checkpoints)), dict(checkpoints.torch_files._NAMES)
    rebuild = Built(Name("torch._utils _rebuild_tensor_v2"), {"call": 1, "__globals__": {}})
    value = {"a": Built(tensor("0", (1,), rebuild=rebuild), {"shape": (10**9,)})}
    read = checkpoints.read(write(pth_writer.zip_file(value, {"0": (1, b"\0" * 4)}))).arrays
    assert read["a"].shape == (1,)
    assert (dict(vars(checkpoints)), dict(checkpoints.torch_files._NAMES)) == before


HOSTILE_TENSORS = {
    "stride": tensor("0", (2, 2), strides=(1000, 1), count=4),
    "offset": tensor("0", (2, 2), offset=1, count=4),
    "negative offset": tensor("0", (2,), offset=-4, count=4),
    "negative stride": tensor("0", (2,), strides=(-1,), offset=1, count=4),
    "count beyond the file": tensor("0", (10**11,), count=10**11),
    "negative size": tensor("0", (-1,), count=4),
    "text for a size": tensor("0", ("4",), strides=(1,), count=4),
    "shape and strides": tensor("0", (2, 2), strides=(1,), count=4),
    "hundred dimensions": tensor("0", (1,) * 100, count=4),
    "huge and empty": tensor("0", (0, *[2**39] * 6), strides=(1,) * 7, count=4),
    "no storage": Call(Name("torch._utils _rebuild_tensor_v2"), (1, 0, (1,), (1,), False, {})),
    "too few arguments": Call(Name("torch._utils _rebuild_tensor_v2"), ()),
    "a type called": Call(Name("torch FloatStorage"), ()),
    "reference": Persistent(("storage", "FloatStorage", "0", "cpu", 4)),
    "reference to a module": Persistent(("module", Name("torch FloatStorage"), "a", "b", "c")),
    "long key": tensor("../" * 10, (4,)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", HOSTILE_TENSORS)
def test_no_tensor_reaches_beyond_the_file(layout, kind, write):
    data = LAYOUTS[layout]({"a": HOSTILE_TENSORS[kind]}, {"0": (4, b"\0" * 16)})
    with pytest.raises(WeightsError, match=r"weights\.pth.*damaged"):
        checkpoints.read(write(data))


@pytest.mark.parametrize(("shape", "strides"), [((2, 3), (0, 1)), ((10**6, 10**6), (0, 0))])
def test_a_tensor_that_repeats_values_is_named_as_such(shape, strides, write):
    value = {"a": tensor("0", shape, strides=strides, count=4)}
    with pytest.raises(WeightsError, match=r"repeats values: call \.contiguous\(\) before saving"):
        checkpoints.read(write(pth_writer.zip_file(value, {"0": (4, b"\0" * 16)})))


@pytest.mark.parametrize("count", [10**15, -1, 2**62])
def test_a_count_larger_than_the_file_allocates_nothing(count, write):
    data = pth_writer.legacy_file({"a": tensor("0", (4,))}, {"0": (count, b"\0" * 16)})
    with pytest.raises(WeightsError, match="truncated"):
        checkpoints.read(write(data))


def test_compressed_archives_are_refused(write):
    arrays = {"a": np.zeros(10**6, np.float32)}
    data = pth_writer.zip_file(*pth_writer.state_dict(arrays), compression=zipfile.ZIP_DEFLATED)
    assert len(data) < 20_000
    with pytest.raises(WeightsError, match="compressed"):
        checkpoints.read(write(data))


def test_overlapping_members_are_refused(write):
    arrays = {"a": np.ones(1000, np.float32), "b": np.zeros(1000, np.float32)}
    data = pth_writer.zip_file(*pth_writer.state_dict(arrays))
    first, second = (
        zipfile.ZipFile(write(data)).getinfo(f"archive/data/{i}").header_offset for i in "01"
    )
    # Both entries of the directory at the end point to the first member.
    at = data.rindex(struct.pack("<I", second))
    moved = data[:at] + struct.pack("<I", first) + data[at + 4 :]
    with pytest.raises(WeightsError, match="damaged"):
        checkpoints.read(write(moved))


def test_deep_nesting_is_harmless(write):
    body = b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."
    with pytest.raises(WeightsError, match="no dictionary of weights"):
        checkpoints.read(write(zip_with_pickle(body)))


def test_keys_that_take_for_ever_to_hash_are_refused(write):
    bomb = b"N" + b"2\x86" * 60  # 2 ** 60 leaves
    with pytest.raises(WeightsError, match="neither text nor a whole number"):
        checkpoints.read(write(zip_with_pickle(b"\x80\x02}" + bomb + b"Ns.")))


@pytest.mark.parametrize("number", [b"%d" % (2**61 - 1), b"-%d" % 2**61])
def test_numbers_that_share_a_hash_are_refused(number, write):
    for key in (b"I%s\n" % number, b"F%s\n" % number):
        with pytest.raises(WeightsError, match="neither text nor a whole number"):
            checkpoints.read(write(zip_with_pickle(b"\x80\x02}" + key + b"Ns.")))
    with pytest.raises(WeightsError, match="an impossible number"):
        checkpoints.read(write(zip_with_pickle(b"\x80\x02Np" + number + b"\n.")))


def test_ordinary_keys_are_read_beside_the_weights(write):
    tensors, storages = pth_writer.state_dict({"a": np.float32([1, 2])})
    value = {"state_dict": tensors, "optimizer": {0: None, 140_234_866_534_752: None, True: "b"}}
    read = checkpoints.read(write(pth_writer.zip_file(value, storages))).arrays
    assert list(read) == ["a"]


def test_names_that_are_no_text_are_refused(write):
    nested = b"]" * 100_000 + b"a" * 99_999
    doubled = b")" + b"2\x86" * 40  # 2 ** 40 leaves, if anybody printed it
    for body in (nested, doubled):
        with pytest.raises(WeightsError, match="not a name"):
            checkpoints.read(write(zip_with_pickle(b"\x80\x04" + body + b"\x8c\x01x\x93.")))


def test_dictionaries_of_other_than_a_list_are_refused(write):
    body = b"\x80\x02ccollections\nOrderedDict\n(((X\x01\x00\x00\x00aK\x01tttR."
    with pytest.raises(WeightsError, match="not in a list"):
        checkpoints.read(write(zip_with_pickle(body)))


def test_memo_of_a_huge_index_allocates_nothing(write):
    with pytest.raises(WeightsError, match="no dictionary of weights"):
        checkpoints.read(write(zip_with_pickle(b"\x80\x02Nr\xff\xff\xff\xff.")))


def test_plain_pickles_and_programs_are_named(write):
    with pytest.raises(WeightsError, match="not one that torch"):
        checkpoints.read(write(pickle.dumps({"a": 1}, protocol=2)))
    with pytest.raises(WeightsError, match=r"holds no weights, .* model_ema, state_dict,"):
        checkpoints.read(write(pth_writer.zip_file({"epoch": 1}, {})))
    path = write(pth_writer.zip_file({}, {}))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/constants.pkl", b"")
    with pytest.raises(WeightsError, match="TorchScript"):
        checkpoints.read(path)


def test_a_file_larger_than_any_network_is_not_read(write, monkeypatch):
    path = write(safetensors.numpy.save({"a": np.ones(3, np.float32)}))
    size = path.stat().st_size
    monkeypatch.setattr(checkpoints, "_MAX_BYTES", size)
    assert list(checkpoints.read(path).arrays) == ["a"]
    monkeypatch.setattr(checkpoints, "_MAX_BYTES", size - 1)
    with pytest.raises(WeightsError, match=r"weights\.pth' is larger than any network"):
        checkpoints.read(path)


def test_what_is_no_weight_file_is_named(tmp_path, write):
    with pytest.raises(WeightsError, match="does not exist"):
        checkpoints.read(tmp_path / "absent.pth")
    with pytest.raises(WeightsError, match="is a directory"):
        checkpoints.read(tmp_path)
    with pytest.raises(WeightsError, match="is empty"):
        checkpoints.read(write(b""))
    with pytest.raises(WeightsError, match="regular"):
        checkpoints.read("/dev/null")
    with pytest.raises(WeightsError, match="git lfs pull"):
        checkpoints.read(write(b"version https://git-lfs.github.com/spec/v1\n"))
    with pytest.raises(WeightsError, match="web page"):
        checkpoints.read(write(b"<!DOCTYPE html>"))
    with pytest.raises(WeightsError, match="neither"):
        checkpoints.read(write(b"weights"))


def safetensors_file(dtype, values, *, header_size):
    header = (
        f'{{"a":{{"dtype":"{dtype}","shape":[{values.size}],"data_offsets":[0,{values.nbytes}]}}}}'
    )
    return struct.pack("<Q", header_size) + header.ljust(header_size).encode() + values.tobytes()


# The header's length comes first, and its low byte can look like a pickle's or a web page's start.
@pytest.mark.parametrize("header_size", [0x80, 0x3C + 256, 96])
@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_safetensors(dtype, header_size, write):
    values = np.float32([1, -2, 0.5]).astype({"F32": np.float32, "BF16": ml_dtypes.bfloat16}[dtype])
    path = write(safetensors_file(dtype, values, header_size=header_size))
    np.testing.assert_array_equal(checkpoints.read(path).arrays["a"], values)


@pytest.mark.parametrize("shape", [[1] * 70, [2**63 - 1, 0], [2**64 - 1, 0]])
def test_safetensors_of_impossible_shapes(shape, write):
    size = 0 if 0 in shape else 4
    header = f'{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{size}]}}}}'.encode()
    data = struct.pack("<Q", len(header)) + header + bytes(size)
    with pytest.raises(WeightsError, match=r"weights\.pth' holds 'a' in an impossible shape"):
        checkpoints.read(write(data))


def test_damaged_safetensors(write):
    data = safetensors.numpy.save({"module.a": np.ones((2, 3), np.float32)})
    assert checkpoints.read(write(data)).arrays["a"].shape == (2, 3)
    for stop in (7, 8, 20, len(data) - 1):
        with pytest.raises(WeightsError, match=r"weights\.pth"):
            checkpoints.read(write(data[:stop]))
    with pytest.raises(WeightsError, match="unknown type F8_E5M2"):
        checkpoints.read(write(safetensors_file("F8_E5M2", np.zeros(3, np.uint8), header_size=80)))
