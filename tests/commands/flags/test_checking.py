import os

import pytest
from absl import flags
from absl.testing import flagsaver

from sgfr_jax.commands import export, predict, report, run, select, sweep, update
from sgfr_jax.commands.flags import checking
from sgfr_jax.commands.host import interruption
from sgfr_jax.errors import ArgumentError


def test_a_message_of_the_library_speaks_of_flags():
    said = "layers=auto,block4 must be auto alone, not `image_size` nor a size=3 of something"
    assert checking.as_flags(said) == (
        "--layers=auto,block4 must be auto alone, not --image_size nor a size=3 of something"
    )
    for as_it_is in ("--grid=3 is a flag already", "'/data/split=test/grid=3/0.png' is no image"):
        assert checking.as_flags(as_it_is) == as_it_is


def test_messages_of_commands_and_of_the_system_stay_as_they_are():
    said = "grid few_shot, point 1 (layers=fast shots=1): --shots=1 is too few"
    assert checking.message(checking.ConfigError(said)) == said
    missing = FileNotFoundError(2, "No such file", "split=test/0.png")
    assert checking.message(missing) == "[Errno 2] No such file: 'split=test/0.png'"
    assert checking.message(ArgumentError("shots=1 is too few")) == "--shots=1 is too few"


@pytest.mark.parametrize(
    "main, flag, values",
    [
        (predict.main, "output_dir", {"model": "m", "images": "i"}),
        (predict.main, "weights", {"model": "m", "images": "i"}),
        (update.main, "report", {"model": "m", "images": "i", "output": "o"}),
        (run.main, "workdir", {"dataset": "demo"}),
        (run.main, "data_dir", {"dataset": "folder", "workdir": "w"}),
        (select.main, "workdir", {"dataset": "demo"}),
        (sweep.main, "workdir", {"dataset": "demo", "grid": "seeds"}),
    ],
)
def test_an_empty_path_is_refused_before_anything_is_written(
    main, flag, values, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["run"])
    given = {"cache_dir": "", **values, flag: ""}
    with flagsaver.flagsaver(**given), pytest.raises(SystemExit, match=f"--{flag}= is empty"):
        main(["run"])
    assert set(os.listdir(tmp_path)) <= {"w"}


@pytest.mark.parametrize(
    "main, arguments, flag",
    [
        (report.main, ["--workdir", ""], "workdir"),
        (report.main, ["--workdir", "w", "--out", ""], "out"),
        (export.main, ["--model", "m", "--output", ""], "output"),
    ],
)
def test_an_empty_path_of_other_commands_is_refused(main, arguments, flag, monkeypatch):
    monkeypatch.setattr(interruption, "exit_at_once", lambda *args: None)
    with pytest.raises(SystemExit, match=f"--{flag}= is empty"):
        main(arguments)
