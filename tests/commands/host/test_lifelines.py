"""Lines between threads of one process, and to one that is killed."""

import socket
import subprocess
import sys
import threading
import time

import pytest

from sgfr_jax.commands.host import lifelines

TOKEN = bytes(range(lifelines.TOKEN_BYTES))
WAIT = 10  # of a loaded machine


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(lifelines, "_PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(lifelines, "_POLL_SECONDS", 0.05)


@pytest.fixture
def first():
    """What listens: its address, whom it has missed, and the event that ends it."""
    listening, missed, ended = lifelines.listener(), [], threading.Event()
    address = ("localhost", listening.getsockname()[1])
    thread = threading.Thread(
        target=lifelines.watch, args=(listening, TOKEN, missed.append, ended), daemon=True
    )
    thread.start()
    yield address, missed, ended
    ended.set()
    thread.join(WAIT)
    assert not thread.is_alive()


def call(address, number, token=TOKEN):
    line = socket.create_connection(address, WAIT)
    line.sendall(lifelines.hello(token, number))
    return line


def wait_for(condition):
    limit = time.monotonic() + WAIT
    while not condition() and time.monotonic() < limit:
        time.sleep(0.05)
    return condition()


def test_who_hangs_up_is_missed_and_who_says_goodbye_is_not(first):
    address, missed, _ = first
    left = threading.Event()
    polite = threading.Thread(
        target=lifelines.stay, args=(address, lifelines.hello(TOKEN, 1), WAIT, left)
    )
    polite.start()
    rude, staying = call(address, 2), call(address, 3)
    time.sleep(0.2)
    left.set()
    polite.join(WAIT)
    rude.close()
    assert wait_for(lambda: missed == [2])
    time.sleep(0.7)
    assert missed == [2]
    staying.close()


def test_a_process_that_is_killed_is_missed(first):
    address, missed, _ = first
    code = (
        "import socket, time;"
        f"line = socket.create_connection({address!r});"
        f"line.sendall({lifelines.hello(TOKEN, 7)!r});"
        "print('called', flush=True); time.sleep(100)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "called\n"
    assert missed == []
    process.kill()
    process.communicate()
    assert wait_for(lambda: missed == [7])


def test_who_calls_again_is_not_missed(first):
    address, missed, _ = first
    call(address, 1).close()
    again = call(address, 1)
    call(address, 2).close()
    assert wait_for(lambda: missed == [2])
    again.close()


def test_strangers_are_nobody(first):
    address, missed, _ = first
    call(address, 1, token=bytes(len(TOKEN))).close()
    with socket.create_connection(address) as silent:
        silent.sendall(b"GET / HTTP/1.1\r\n")
    assert lifelines.answers(address, WAIT)
    call(address, 2).close()
    assert wait_for(lambda: missed == [2])


def test_nobody_is_missed_after_the_end(first):
    address, missed, ended = first
    line = call(address, 1)
    time.sleep(0.2)
    ended.set()
    line.close()
    time.sleep(0.7)
    assert missed == []


def test_who_never_hangs_up_is_left(first, monkeypatch, capfd):
    monkeypatch.setattr(lifelines, "_PARTING_SECONDS", 0.2)
    address, missed, ended = first
    with call(address, 1):
        time.sleep(0.2)
        ended.set()
        time.sleep(1)
        assert not lifelines.answers(address, WAIT)
    assert missed == [] and capfd.readouterr().err == ""


def test_the_first_process_is_missed_by_those_on_the_line():
    listening, ended = lifelines.listener(), threading.Event()
    address = ("localhost", listening.getsockname()[1])
    threading.Timer(0.5, listening.close).start()
    with pytest.raises(OSError):
        lifelines.stay(address, lifelines.hello(TOKEN, 1), WAIT, ended)
    assert not lifelines.answers(address, WAIT)
    with pytest.raises(OSError):
        lifelines.stay(address, b"", WAIT, ended)
