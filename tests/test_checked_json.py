import dataclasses
import json
import math
from typing import Any, NamedTuple, TypedDict

import pytest

from sgfr_jax import checked_json
from sgfr_jax.checked_json import Damaged


class Inner(TypedDict):
    name: str
    sizes: list[int]


class Kept(NamedTuple):
    score: float
    number: int
    flag: bool
    note: str | None
    metrics: dict[str, dict[str, float | None]]
    layers: tuple[str, ...]
    inner: Inner
    anything: Any


KEPT = Kept(0.1 + 0.2, 3, True, None, {"a": {"b": None, "c": 1e-300}}, ("x", "y"),
            {"name": "ä\ud800", "sizes": [1, 2]}, {2: 1, 10: [None]})  # fmt: skip


@pytest.mark.parametrize("indent", [None, 2])
def test_what_was_written_is_read(indent):
    found = checked_json.loads(checked_json.dumps(KEPT._asdict(), indent).encode(), Kept)
    assert found == KEPT._replace(layers=["x", "y"], anything={"2": 1, "10": [None]})


def test_data_classes_too():
    @dataclasses.dataclass
    class One:
        name: str

    assert checked_json.loads(checked_json.dumps({"name": "a"}).encode(), One) == One("a")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_json_has_not(value):
    with pytest.raises(ValueError, match="JSON"):
        checked_json.dumps({"a": value})


def test_every_change_of_a_value_or_a_name_is_found():
    written = json.loads(checked_json.dumps(KEPT._asdict()))
    for name in written:
        for changed in (None, 0, "", [], {}, 1e999, "x" * 9):
            edited = json.dumps(written | {name: changed})
            if changed == written[name] or json.loads(edited) == written:
                continue
            with pytest.raises(Damaged):
                checked_json.loads(edited.encode(), Kept)
        edited = json.dumps({f"{n}_" if n == name else n: v for n, v in written.items()})
        with pytest.raises(Damaged):
            checked_json.loads(edited.encode(), Kept)


@pytest.mark.parametrize(
    "data, why",
    [
        (b"", "cut off"),
        (b"[1]", "no JSON object"),
        (b"\xff\xfe{}", "not text in UTF-8"),
        (b"[" * 100_000, "cut off or not JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "cut off or not JSON"),
        (b"{}", "no checksum: an earlier version"),
        (b'{"sha256": 1, "a": NaN}', "not finite"),
        (b'{"sha256": "", "a": 1}', "its checksum is wrong"),
    ],
)
def test_damage_has_a_reason(data, why):
    with pytest.raises(Damaged, match=why):
        checked_json.loads(data, Kept)


@pytest.mark.parametrize(
    "changes",
    [
        {"score": True}, {"score": "1"}, {"number": 1.0}, {"number": True}, {"flag": 1},
        {"note": 3}, {"metrics": {"a": {"b": "c"}}}, {"metrics": []}, {"layers": ["a", 1]},
        {"layers": "ab"}, {"inner": {"name": "a"}}, {"inner": {"name": "a", "sizes": [None]}},
        {"more": 1},
    ],
)  # fmt: skip
def test_another_class_is_of_another_version(changes):
    with pytest.raises(Damaged, match="another version wrote it"):
        checked_json.loads(checked_json.dumps(KEPT._asdict() | changes).encode(), Kept)
    with pytest.raises(Damaged, match="another version wrote it: score"):
        without = {name: v for name, v in KEPT._asdict().items() if name != "score"}
        checked_json.loads(checked_json.dumps(without).encode(), Kept)
