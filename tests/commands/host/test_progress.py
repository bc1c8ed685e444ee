from sgfr_jax.commands.host import progress


def test_a_log_gets_lines_with_rate_and_time_left(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    with progress.bar("embedding", 4, "images") as report:
        report(1)
        report(3)
    first, last = capsys.readouterr().err.splitlines()
    assert "embedding:  25%" in first and "images/s" in first and "<" in first
    assert "embedding: 100%" in last and "4/4" in last


def test_a_short_job_says_one_line(capsys):
    with progress.bar("embedding", 3, "images") as report:
        for _ in range(3):
            report(1)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress.bar("embedding", 2, "images") as report:
        report(2)
    assert "\r" in capsys.readouterr().err
