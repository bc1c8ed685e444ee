import numpy as np
import pytest

from benchmarks import defaults
from sgfr_jax.commands import select
from sgfr_jax.commands.files import inputs, records
from sgfr_jax.commands.flags import config
from sgfr_jax.datasets import Category, Example


def rows_of(table):
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return rows[0], {(row[0], row[1]): row[2:] for row in rows[2:]}


def test_every_alternative_differs_from_the_defaults_in_its_flag_alone():
    (_, default), *others = defaults.points(config.Config.of(dataset="demo", geometry="square"))
    assert len(others) == sum(map(len, defaults.ALTERNATIVES.values()))
    for title, settings in others:
        flag, _, value = title.partition("=")
        changed = {k for k, v in settings.flat().items() if v != default.get(k)}
        assert flag in changed
        if value != "fast":  # one bank has a size of its own
            assert changed - {"large_image_size"} == {flag}  # which auto's layers alone have


def test_a_default_stays_unless_the_best_is_ahead_by_more_than_chance():
    titles = ["default", *(f"{f}={v}" for f, vs in defaults.ALTERNATIVES.items() for v in vs)]
    found = {name: {title: [0.5, 0.6] for title in titles} for name in ("mtd", "demo")}
    found["mtd"]["halo=0.3"], found["demo"]["halo=0.3"] = [0.51, 0.612], [0.511, 0.611]
    found["mtd"]["breadth=0.5"], found["demo"]["breadth=0.5"] = [0.6, 0.5], [0.51, 0.6]
    head, rows = rows_of(defaults.table(found, least_gain=0))
    assert head == ["flag", "value", "mtd", "demo", "mean", "behind", "chosen"]
    assert rows["`--halo`", "0.3"] == ["56.1", "56.1", "56.10", "0.00 ± 0.00", "yes"]
    # By 1.0, 1.2, 1.1 and 1.1.
    error = np.std([1.0, 1.2, 1.1, 1.1], ddof=1) / 2
    assert rows["`--halo`", "default"][3:] == [f"1.10 ± {error:.2f}", ""]
    assert rows["`--breadth`", "default"][-1] == "yes"
    assert rows["`--breadth`", "0.5"][2:] == ["55.25", "0.00 ± 0.00", ""]
    _, rows = rows_of(defaults.table(found, least_gain=1.2))
    assert rows["`--halo`", "default"][-1] == "yes" and rows["`--halo`", "0.3"][-1] == ""


def test_what_was_scored_is_kept(tmp_path, monkeypatch, capsys, rng):
    shown = rng.integers(0, 255, (6, 300, 300, 3), np.uint8)
    train = tuple(Example(f"{i}", image, 0, "good", None) for i, image in enumerate(shown))
    monkeypatch.setattr(inputs, "load_data", lambda settings: [Category("a", train, ())])

    def judged(settings, categories, resources):
        value = 0.9 if settings.method.solver == "nearest" else 0.5
        return {"a": dict.fromkeys(select.CRITERION, value + 0.01 * settings.evaluation.seed)}

    monkeypatch.setattr(select, "evaluate", judged)
    defaults.main(["--data=demo", f"--workdir={tmp_path}", "--repeats=2"])
    printed = capsys.readouterr().out
    head, rows = rows_of(printed)
    assert head[2:-3] == ["demo"]
    assert rows["`--solver`", "nearest"] == ["90.5", "90.50", "0.00 ± 0.00", "yes"]
    assert rows["`--layers`", "default"][-1] == "yes"

    def never(*arguments):
        raise AssertionError("scored again")

    monkeypatch.setattr(select, "evaluate", never)
    defaults.main(["--data=demo", f"--workdir={tmp_path}", "--repeats=2"])
    assert capsys.readouterr().out == printed
    # What was made otherwise does not stand beside it.
    other = tmp_path / "imitation" / "criteria.json"
    records.write(other, defaults._made(repeats=3)._asdict())
    defaults.main(["--data=demo", f"--workdir={tmp_path}", "--repeats=2"])
    again = capsys.readouterr()
    assert again.out == printed and f"{other} is of other code or other repeats" in again.err


@pytest.mark.parametrize(
    "given,message",
    [
        (["--data=dmo"], "--data=dmo: they are mtd, demo, imitation"),
        (["--data=mtd"], "--data=mtd needs --mtd=DIR"),
        (["--repeats=0"], "--repeats=0: there must be one at least"),
        (["--least_gain=-1"], "--least_gain=-1.0: it must not be negative"),
        (["--mtd=/nowhere", "--data=mtd"], "error: "),
    ],
)
def test_mistakes_are_named_before_any_work(tmp_path, monkeypatch, capsys, given, message):
    monkeypatch.setattr(select, "evaluate", None)
    with pytest.raises(SystemExit) as stopped:
        defaults.main([*given, f"--workdir={tmp_path}"])
    assert message in capsys.readouterr().err + str(stopped.value.code)
