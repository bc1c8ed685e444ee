"""The flags that say where images come from, and the look at them before a run."""

import json
import shutil

import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from sgfr_jax import datasets
from sgfr_jax.commands import run
from sgfr_jax.commands.flags import config
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.host import interruption
from sgfr_jax.commands.host.machine import Resources
from sgfr_jax.datasets import counts

SMALL = {
    "dataset": "folder", "image_size": 64, "layers": ["block2"], "bank_size": 20, "cache_dir": "",
    "num_figures": 0, "num_neighbors": 5,
}  # fmt: skip


@pytest.fixture(autouse=True)
def parsed(monkeypatch):
    monkeypatch.setattr(interruption, "exit_at_once", lambda *args: None)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["run"])


def main(**values):
    """The exit status; 0 where `main` returns."""
    with flagsaver.flagsaver(**SMALL | values):
        try:
            run.main(["run"])
        except SystemExit as stopped:
            return stopped.code
    return 0


def test_globs_are_a_data_set(folder, tmp_path):
    workdir = tmp_path / "out"
    status = main(
        data_dir=str(folder / "cap"), workdir=str(workdir), train_glob="train/good/*.png",
        test_glob="test/*/*.png", mask_glob="ground_truth/*/*.png",
    )  # fmt: skip
    assert status == 0
    (found,) = json.loads((workdir / "results.json").read_text())["categories"].values()
    assert found["num_train"] == 5 and found["image_auroc"] == 1.0
    assert found["pixel_auroc"] > 0.9  # the masks were found
    assert len((workdir / "scores.csv").read_text().splitlines()) == 1 + 6


def test_a_manifest_is_a_data_set(folder, tmp_path):
    rows = ["path,split,label"]
    rows += [f"cap/train/good/{i}.png,train,0" for i in range(5)]
    rows += [f"cap/test/dent/{i}.png,test,1" for i in range(3)]
    manifest = tmp_path / "images.csv"
    manifest.write_text("\n".join(rows))
    workdir = tmp_path / "out"
    status = main(data_dir=str(folder), manifest=str(manifest), workdir=str(workdir))
    assert status == 0
    assert len((workdir / "scores.csv").read_text().splitlines()) == 1 + 3


@pytest.mark.parametrize("geometry", ["square", "tile"])
def test_prepared_records_give_the_scores_of_the_files(folder, tmp_path, geometry, monkeypatch):
    monkeypatch.setattr(counts, "_is_short", lambda dataset, category: False)
    shutil.copytree(folder / "cap", tmp_path / "data" / "bottle")
    for path in (tmp_path / "data").rglob("*0*.png"):  # neither square nor all alike
        with Image.open(path) as image:
            image.crop((0, 0, 72, 60)).save(path)
    fields = dict(SMALL, dataset="mvtec", layers=("block2",), geometry=geometry, tile=None)
    for name in ("cache_dir", "num_figures"):
        del fields[name]
    found = []
    for prepared_dir in (None, str(tmp_path / "prepared")):
        settings = config.Config.of(
            **fields, data_dir=str(tmp_path / "data"), prepared_dir=prepared_dir
        )
        workdir = tmp_path / f"out {prepared_dir is None}"
        found += run.run(config.resolve(settings), Resources(workdir, batch_size=4))
    files, records = found
    assert [i["score"] for i in files.images] == [i["score"] for i in records.images]
    for name, value in files.results.items():
        assert name == "seconds" or records.results[name] == value, name


def test_every_flag_of_the_data_reaches_the_loader(monkeypatch):
    given = {
        "data_dir": "data", "prepared_dir": "records", "accept_license": True, "train_glob": "a",
        "test_glob": "b", "mask_glob": "c", "manifest": "d", "split_seed": 3, "split": "grouped",
    }  # fmt: skip
    asked = []

    def load(name, data_dir, **keywords):
        asked.append({"data_dir": data_dir} | keywords)
        raise datasets.DatasetError("seen enough")

    monkeypatch.setattr(datasets, "load", load)
    assert main(**given, dataset="mtd", check_data=True) == "error: seen enough"
    assert asked == [given | {"categories": None}]


def test_routes_that_do_not_fit_name_the_flag(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # results go to runs/DATASET
    assert "--train_glob is for data set 'folder'" in main(dataset="mvtec", train_glob="*.png")
    assert "--test_glob needs --train_glob" in main(data_dir=str(folder), test_glob="*.png")
    assert "--split=grouped must be left out" in main(data_dir=str(folder), split="grouped")
    assert "--accept_license is for" in main(data_dir=str(folder), accept_license=True)


def test_what_differs_from_the_published_numbers_is_said(folder, tmp_path, capsys):
    bottle = tmp_path / "mvtec" / "bottle"
    shutil.copytree(folder / "cap", bottle)
    settings = config.Config.of(
        dataset="mvtec",
        data_dir=str(bottle.parent),
        categories=("bottle",),
        layers=("fast",),
        bank_size=10**6,
    )
    with pytest.raises(ConfigError, match="--bank_size"):
        run.run(config.resolve(settings), Resources(tmp_path / "out"))
    assert "note: bottle has 5 training images instead of 209" in capsys.readouterr().err


class TestCheckData:
    @pytest.fixture(autouse=True)
    def nothing_else(self, monkeypatch, tmp_path):
        monkeypatch.setattr("sgfr_jax.backbones.load", lambda *args: pytest.fail("weights loaded"))
        yield
        assert not (tmp_path / "out").exists()

    def test_good_images(self, folder, tmp_path, capsys):
        workdir = str(tmp_path / "out")
        assert main(data_dir=str(folder), workdir=workdir, check_data=True) == 0
        shown = capsys.readouterr().out
        assert "cap:" in shown and "3 good, 3 defective" in shown and "72 x 72" in shown

    def test_a_bad_image(self, folder, tmp_path, capsys):
        (folder / "cap" / "train" / "good" / "1.png").write_bytes(b"no image")
        (folder / "nut" / "test" / "dent" / "2.png").write_bytes(b"nor this")
        workdir = str(tmp_path / "out")
        assert main(data_dir=str(folder), workdir=workdir, check_data=True) == 1
        shown = capsys.readouterr().out
        assert "1.png" in shown and "2.png" in shown

    def test_images_smaller_than_the_network_can_use(self, folder, tmp_path, capsys):
        path = folder / "cap" / "train" / "good" / "1.png"
        Image.new("L", (20, 20)).save(path)
        checking = {"data_dir": str(folder), "workdir": str(tmp_path / "out"), "check_data": True}
        assert main(**checking) == 0  # block2 has a stride of 4
        assert main(**checking, layers=["block15"]) == 1
        assert "1.png" in capsys.readouterr().out


def test_the_licence_is_no_setting():
    assert "accept_license" not in config.FIELDS
    assert Resources._field_defaults["accept_license"] is False
