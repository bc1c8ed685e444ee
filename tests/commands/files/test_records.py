import csv
import errno
import json
from pathlib import Path

import pytest

from sgfr_jax.commands.files import records
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.metrics import Metrics


def results(value):
    seconds = {"embed_train": 1.0, "sample": 2.0, "score_test": 3.0, "metrics": 4.0}
    return dict.fromkeys(Metrics._fields, value) | {
        "num_train": 5,
        "num_test": 2,
        "num_atoms": 9,
        "seconds": seconds,
    }


def record(name, value, baseline=0.5):
    return records.Record(
        category=name,
        digest=f"digest-of-{name}",
        config={"solver": "affine_ridge"},
        environment={"jax": "0"},
        results=results(value),
        baselines={"nearest": results(baseline)},
        images=[{"file": "a.png", "label": 1, "kind": "cut", "score": 0.25, "score_nearest": 0.5}],
        notes=["a note"] if value is None else [],
    )


def finish(workdir, finished):
    records.finish(workdir, finished, {"solver": "affine_ridge", "seed": 3}, {"jax": "1"})


def test_results_have_the_promised_shape(tmp_path):
    finish(tmp_path, [record("cap", 0.75), record("nut", 0.25)])
    found = json.loads((tmp_path / "results.json").read_text())
    assert set(found) >= {"config", "environment", "categories", "mean", "baselines"}
    # The run's own, not those of a record that an earlier run made.
    assert found["config"]["seed"] == 3 and found["environment"] == {"jax": "1"}
    assert json.loads((tmp_path / "config.json").read_text()) == found["config"]
    assert set(found["categories"]["cap"]) == {
        *Metrics._fields, "num_train", "num_test", "num_atoms", "seconds"
    }  # fmt: skip
    assert set(found["categories"]["cap"]["seconds"]) == {
        "embed_train", "sample", "score_test", "metrics"
    }  # fmt: skip
    assert found["mean"]["pixel_ap"] == 0.5
    assert set(found["baselines"]["nearest"]) == {"categories", "mean"}
    assert found["baselines"]["nearest"]["mean"]["aupro"] == 0.5

    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert [(r["method"], r["category"]) for r in rows] == [
        ("affine_ridge", "cap"), ("affine_ridge", "nut"), ("nearest", "cap"), ("nearest", "nut")
    ]  # fmt: skip
    assert rows[1]["aupro_05"] == "0.25" and rows[1]["seconds_sample"] == "2.0"
    scores = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert scores[0] == {
        "category": "cap", "file": "a.png", "label": "1", "kind": "cut", "score": "0.25",
        "score_nearest": "0.5",
    }  # fmt: skip


def test_undefined_metrics_are_null_and_left_out_of_the_mean(tmp_path):
    finish(tmp_path, [record("cap", None), record("nut", 0.25)])
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["categories"]["cap"]["aupro"] is None
    assert found["mean"]["aupro"] == 0.25
    assert found["notes"] == {"cap": ["a note"]}
    assert records.mean([results(None)])["aupro"] is None


def test_a_kept_record_comes_back_until_the_run_is_finished(tmp_path):
    kept = record("cap", 0.75)
    records.keep(tmp_path, kept)
    assert records.kept(tmp_path, kept.digest) == kept
    assert records.kept(tmp_path, "another") is None
    (tmp_path / "unfinished" / f"{kept.digest}.json").rename(tmp_path / "unfinished" / "other.json")
    assert records.kept(tmp_path, "other") is None
    records.keep(tmp_path, kept)
    finish(tmp_path, [kept])
    assert records.kept(tmp_path, kept.digest) is None


def test_records_of_another_run_are_left_alone(tmp_path):
    other, own = record("nut", 0.5), record("cap", 0.75)
    records.keep(tmp_path, other)
    records.keep(tmp_path, own)
    finish(tmp_path, [own])
    assert records.kept(tmp_path, own.digest) is None
    assert records.kept(tmp_path, other.digest) == other


def test_names_that_are_formulas_come_back(tmp_path):
    made = record("cap", 0.75)
    named = [made.images[0] | {"file": name} for name in ("=1+1.png", "a\x1b[2J.png", "'.png")]
    finish(tmp_path, [records.Record(**{**vars(made), "images": named})])
    text = (tmp_path / "scores.csv").read_text()
    assert "cap,'=1+1.png,1" in text and "\x1b" not in text
    found = records.scores(tmp_path, records.read(tmp_path / "results.json", records.Results))
    assert [row["file"] for row in found] == [image["file"] for image in named]
    (tmp_path / "scores.csv").write_text(text.replace("0.25", "0.26"))
    with pytest.raises(records.Damaged, match="not the one that results"):
        records.scores(tmp_path, records.read(tmp_path / "results.json", records.Results))


def test_no_test_images_leave_a_header(tmp_path):
    empty = records.Record(**{**vars(record("cap", None)), "images": []})
    finish(tmp_path, [empty])
    header = "category,file,label,kind,score,score_nearest\n"
    assert (tmp_path / "scores.csv").read_text() == header


def test_a_damaged_record_counts_as_none(tmp_path):
    kept = record("cap", 0.75)
    records.keep(tmp_path, kept)
    path = next((tmp_path / "unfinished").iterdir())
    for damage in (path.read_text()[:40], "[]", "{}"):
        path.write_text(damage)
        assert records.kept(tmp_path, kept.digest) is None


def test_files_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "results.json"
    records.write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        records.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize("name", ["figures", "unfinished"])
def test_a_file_where_a_directory_must_be(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(ConfigError, match="--workdir"):
        records.open_workdir(tmp_path)


@pytest.mark.parametrize("name", records.FILES)
def test_a_directory_where_a_file_must_be(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match=f"{name} is a directory"):
        records.open_workdir(tmp_path)


def test_opening_leaves_the_files_that_are_there(tmp_path):
    (tmp_path / "probe").write_text("mine")
    records.open_workdir(tmp_path)
    assert (tmp_path / "probe").read_text() == "mine"


def test_a_work_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--workdir=.*cannot be written"):
        records.open_workdir(tmp_path / "file" / "below")


def test_what_a_run_has_left_is_found(tmp_path):
    assert records.finished(tmp_path) is None and not records.begun(tmp_path)
    records.keep(tmp_path, record("cap", 0.5))
    assert records.finished(tmp_path) is None and records.begun(tmp_path)
    made = [record("cap", 0.75), record("nut", None)]
    finish(tmp_path, made)
    assert records.begun(tmp_path)
    for found, expected in zip(records.finished(tmp_path), made, strict=True):
        assert (found.category, found.results) == (expected.category, expected.results)
        assert (found.baselines, found.notes) == (expected.baselines, expected.notes)
        assert found.config["seed"] == 3 and found.environment == {"jax": "1"}


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")  # so does the system: no name

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/table.csv'$"):
        records.write_text(tmp_path / "table.csv", "a,b")
