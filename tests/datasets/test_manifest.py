import json
from pathlib import Path

import pytest

from sgfr_jax import datasets
from sgfr_jax.datasets import DatasetError
from tests.datasets import trees


@pytest.fixture
def root(tmp_path):
    for name in ("a.png", "b.png", "c.png", "d.jpg"):
        trees.save(tmp_path / "shots" / name, trees.image(len(name)))
    trees.save(tmp_path / "marks/c.png", trees.mask())
    return tmp_path


def _csv(root, *rows, header="path,split,label,mask"):
    path = root / "list.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def _load(manifest, **arguments):
    return datasets.load("folder", manifest=manifest, **arguments)


GOOD_ROWS = (
    "shots/a.png,train,,",
    "shots/b.png,train,good,",
    "shots/c.png,test,defective,marks/c.png",
    "shots/d.jpg,test,0,",
)


def test_csv(root):
    (category,) = _load(_csv(root, *GOOD_ROWS))
    assert category.name == "list"
    assert [e.name for e in category.train] == ["shots/a.png", "shots/b.png"]
    assert [(e.name, e.label, e.kind) for e in category.test] == [
        ("shots/c.png", 1, "defect"),
        ("shots/d.jpg", 0, "good"),
    ]
    assert category.test[0].mask == root / "marks/c.png"
    assert datasets.read_example(category.test[0], 24).mask.any()


def test_json_lines_with_categories_and_kinds(root):
    rows = [
        {"path": "shots/a.png", "split": "train", "category": "cup"},
        {"path": "shots/b.png", "split": "validation", "category": "cup", "mask": None},
        {"path": "shots/c.png", "split": "test", "label": 1, "category": "cup", "kind": "chip"},
        {"path": "shots/d.jpg", "split": "train", "label": "ok", "category": "lid"},
    ]
    path = root / "list.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    cup, lid = _load(path)
    assert (cup.name, lid.name) == ("cup", "lid")
    assert cup.test[0].kind == "chip" and len(cup.validation) == 1 and lid.test == ()
    assert [c.name for c in _load(path, categories=["lid"])] == ["lid"]
    with pytest.raises(DatasetError, match=r"Did you mean 'lid'\?"):
        _load(path, categories=["lids"])


@pytest.mark.parametrize("written", ["shots/{}", "marks/../shots/{}", "{root}/shots/{}"])
def test_paths_from_where_we_are(root, monkeypatch, written):
    (root / "below").mkdir()
    monkeypatch.chdir(root / "below")
    rows = [f"{written.format(name, root=root)},train,," for name in ("a.png", "b.png")]
    _csv(root, *rows)
    for manifest in ("../list.csv", f"{root}/below/../list.csv"):
        (category,) = _load(Path(manifest))
        assert [e.name for e in category.train] == ["shots/a.png", "shots/b.png"]
        assert all(e.image.is_file() for e in category.train)


@pytest.mark.parametrize("column", ["category", "kind"])
@pytest.mark.parametrize("name", ["../../other", "a/b", "a\\b", "..", "nul\0"])
def test_names_that_would_leave_the_work_directory(root, column, name):
    rows = [
        {"path": "shots/a.png", "split": "train"},
        {"path": "shots/c.png", "split": "test", "label": 1, column: name},
    ]
    path = root / "list.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DatasetError, match=f"row 2 .* has the {column} .* leave out / and"):
        _load(path)


def test_paths_are_relative_to_the_data_directory(root):
    elsewhere = root / "lists"
    elsewhere.mkdir()
    manifest = _csv(elsewhere, "a.png,train,,", f"{root}/shots/b.png,train,,")
    (category,) = _load(manifest, data_dir=root / "shots")
    assert [e.name for e in category.train] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    "text", ["﻿path,split\r\nshots/a.png,train\r\n", "split,path\ntrain, shots/a.png\n"]
)
def test_spellings_of_csv(root, text):
    (root / "list.csv").write_bytes(text.encode())
    (category,) = _load(root / "list.csv")
    assert [e.name for e in category.train] == ["shots/a.png"]


@pytest.mark.parametrize("separator", [";", "\t", ","])
@pytest.mark.parametrize("first", ["", "sep={}\n"])
@pytest.mark.parametrize("name", ["list.csv", "list.tsv"])
def test_tables_of_spreadsheets(root, separator, first, name):
    """Separators, capitals, line ends and quotes as Excel writes them."""
    rows = ["Path,Split,Label,Mask", '"shots/a.png",train,OK,', "shots/b.png,train,,",
            'shots/c.png,test,NG,"marks/c.png"', "shots/d.jpg,TEST,ok,"]  # fmt: skip
    text = "\r\n".join(rows).replace(",", separator) + "\r\n"
    (root / name).write_text("\ufeff" + first.format(separator) + text, encoding="utf-8")
    (category,) = _load(root / name)
    assert [e.name for e in category.train] == ["shots/a.png", "shots/b.png"]
    assert [e.label for e in category.test] == [1, 0]
    assert category.test[0].mask == root / "marks/c.png"


def test_a_row_with_another_separator_than_the_header(root):
    path = _csv(root, "shots/a.png,train", header="path;split")
    with pytest.raises(
        DatasetError, match=r"row 2 .* has 1 fields; the header has 2, .*semicolons"
    ):
        _load(path)


@pytest.mark.parametrize(
    "nominal, defective",
    [("OK", "NG"), ("ok", "NOK"), ("pass", "fail"), ("Passed", "FAILED"), ("good", "bad"),
     ("0", "1"), ("0.0", "1.0"), ("normal", "anomaly"), ("nominal", "defective")],
)  # fmt: skip
def test_labels(root, nominal, defective):
    rows = (
        f"shots/a.png,train,{nominal},",
        f"shots/c.png,test,{defective},marks/c.png",
        f"shots/d.jpg,test,{nominal},",
    )
    (category,) = _load(_csv(root, *rows))
    assert [(e.label, e.kind) for e in category.test] == [(1, "defect"), (0, "good")]


@pytest.mark.parametrize("label", ["true", "2", "-1", "maybe"])
def test_labels_that_may_mean_either(root, label):
    path = _csv(root, "shots/a.png,train,,", f"shots/c.png,test,{label},")
    with pytest.raises(DatasetError, match=f"row 3 .* has the label '{label}'; good, ok.* bad, ng"):
        _load(path)


def test_a_kind_that_says_that_there_is_no_defect(root):
    header = "path,split,label,kind"
    rows = ("shots/a.png,train,OK,OK", "shots/d.jpg,test,OK,Normal", "shots/c.png,test,NG,dent")
    (category,) = _load(_csv(root, *rows, header=header))
    assert [e.kind for e in category.test] == ["good", "dent"]
    with pytest.raises(DatasetError, match=r"row 5 .* has the kind 'good', which contradicts"):
        _load(_csv(root, *rows, "shots/b.png,test,NG,ok", header=header))


def test_paths_as_windows_writes_them(root):
    trees.save(root / "a\\b.png", trees.image(3))  # a name here
    rows = (r"shots\a.png,train,,", r"a\b.png,train,,", r".\shots\c.png,test,1,marks\c.png")
    (category,) = _load(_csv(root, *rows))
    assert [e.name for e in category.train] == ["shots/a.png", "a\\b.png"]
    assert category.test[0].mask == root / "marks/c.png"
    path = _csv(root, r"C:\shots\a.png,train,,")
    with pytest.raises(DatasetError, match=r"row 2 .* names 'C:\\shots\\a\.png', but there is no"):
        _load(path)


def test_one_image_by_two_names(root):
    (root / "shots/link.png").symlink_to(root / "shots/a.png")
    path = _csv(root, "shots/a.png,train,,", "shots/link.png,test,0,")
    with pytest.raises(DatasetError, match=r"row 3 .* names 'shots/link\.png' again, as row 2"):
        _load(path)


def test_every_row_that_is_wrong_is_named_at_once(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "x.png"
    trees.save(outside, trees.image(0))
    (root / "shots/link.png").symlink_to(outside)
    (root / "notes.txt").write_text("")
    rows = {
        "shots/none.png,train,,": "row 6 .* names 'shots/none.png', but there is no file",
        "../x.png,train,,": r"row 7 .* names '\.\./x\.png', which lies outside",
        f"{outside},train,,": "row 8 .* which lies outside",
        "shots/link.png,train,,": "row 9 .* which lies outside",
        "shots/../shots/a.png,train,,": "row 10 .* names 'shots/a.png' again, as row 2 does",
        "shots/a.png,training,,": "row 11 .* has the split 'training'",
        "shots/a.png,test,,": "row 12 .* has the label ''; good",
        "shots/a.png,train,1,": "row 13 .* is defective, but train images must all be good",
        "shots/a.png,test,1,marks/none.png": "row 14 .* names 'marks/none.png', but there is no",
        "shots/a.png,test": "row 15 .* has 2 fields; the header has 4",
        "notes.txt,train,,": "row 16 .* no image by its suffix",
        "shots,train,,": "row 17 .* but there is no file",
    }
    with pytest.raises(DatasetError, match="there are 12 problems") as caught:
        _load(_csv(root, *GOOD_ROWS, *rows))
    for message in rows.values():
        assert caught.match(message)
    assert caught.match("A manifest is a CSV file")


FILES = {
    "list.csv": [
        ("", "is empty; its first line must name the columns"),
        ("path,split\n", "has no rows"),
        ("file,split\na,train\n", r"unknown column 'file'.*Known: path, split"),
        ("path\na\n", "lacks: split"),
        ("path,split,path\na,train,b\n", "names a column twice"),
        ('path,split\n"shots/a.png,train\n', "row 2 .* is not CSV"),
        ("path,split\nshots/d.jpg,test\n", "row 2 .* label ''"),
        ("path,split,label\nshots/d.jpg,test,1\n", "names no training image of 'list'"),
    ],
    "list.jsonl": [
        ("", "has no rows"),
        ('{"path": "shots/a.png", "split": "train"}\n{\n', "row 2 .* is not JSON"),
        ("[1]\n", "row 1 .* is not a JSON object"),
        ('{"path": "shots/a.png"}\n', "row 1 .* lacks the field 'split'"),
        ('{"path": ["a"], "split": "train"}\n', "row 1 .* has list for 'path'"),
        ('{"paht": "a", "path": "b", "split": "train"}', r"field 'paht'\. Did you mean 'path'"),
        ('{"path": "a\\u0000b", "split": "train"}', "cannot be a path"),
        ('{"path": "a\\ud800.png", "split": "train"}', "row 1 .* has half a character"),
        ('{"path": "a", "split": "train", "kind": "\\udcff"}', "half a character.*for 'kind'"),
        ("[" * 100_000, "row 1 .* is not JSON"),
    ],
    "list.txt": [("path", r"must be a CSV file \(\.csv\)")],
}


@pytest.mark.parametrize(
    "name, text, message", [(name, *case) for name, cases in FILES.items() for case in cases]
)
def test_files_that_are_no_manifest(root, name, text, message):
    (root / name).write_text(text)
    with pytest.raises(DatasetError, match=message):
        _load(root / name)


def test_a_manifest_that_is_not_there_or_not_text(root):
    with pytest.raises(DatasetError, match=r"'.*gone\.csv' does not exist"):
        _load(root / "gone.csv")
    (root / "list.csv").write_bytes(b"path,split\n\xff\xfe")
    with pytest.raises(DatasetError, match=r"is not UTF-8 \(at byte 11\)"):
        _load(root / "list.csv")
