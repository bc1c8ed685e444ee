"""Lines on which processes notice within seconds that another has ended, however it has.

The first process listens; every other calls it, says who it is and stays on the line until it says
goodbye. The kernel hangs up for a process that is killed. A host that vanishes hangs up on nobody,
and is not noticed here.
"""

import asyncio
import collections
import contextlib
import socket
import threading
import time
from collections.abc import Callable

TOKEN_BYTES = 16
_NUMBER_BYTES = 4
_GOODBYE = b"."
# How long a process that has hung up may take to call again.
_PATIENCE_SECONDS = 2
# How long the first process stays for the goodbyes of the others.
_PARTING_SECONDS = 100
_POLL_SECONDS = 0.5


def listener() -> socket.socket:
    """A socket that listens on a free port of every address of this host."""
    with contextlib.suppress(OSError):
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def hello(token: bytes, number: int) -> bytes:
    """What a process says first: the run's token, and its own number."""
    return token + number.to_bytes(_NUMBER_BYTES, "big")


def watch(
    listening: socket.socket, token: bytes, missed: Callable[[int], None], ended: threading.Event
) -> None:
    """Calls `missed` with the number of each process that hangs up without a goodbye.

    Args:
      listening: of `listener`; closed in the end.
      token: `TOKEN_BYTES` of the run: who does not say `hello` with them is nobody.
      missed: called when a process has been off the line for two seconds.
      ended: from then on nobody is missed, and this returns when all have hung up.
    """
    asyncio.run(_watch(listening, token, missed, ended))


async def _watch(listening, token, missed, ended) -> None:
    calls = collections.Counter()
    lines = {}

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines[writer] = asyncio.current_task()
        with contextlib.suppress(OSError, EOFError):
            said = await reader.readexactly(len(hello(token, 0)))
            if said.startswith(token):
                number = int.from_bytes(said[len(token) :], "big")
                calls[number] += 1
                await hung_up(reader, number, calls[number])
        del lines[writer]
        writer.close()

    async def hung_up(reader: asyncio.StreamReader, number: int, call: int) -> None:
        last = b""
        with contextlib.suppress(OSError):
            last = await reader.read()
        if last == _GOODBYE or ended.is_set():
            return
        await asyncio.sleep(_PATIENCE_SECONDS)
        if calls[number] == call and not ended.is_set():
            missed(number)

    async with await asyncio.start_server(attend, sock=listening):
        while not ended.is_set():
            await asyncio.sleep(_POLL_SECONDS)
        limit = time.monotonic() + _PARTING_SECONDS
        while lines and time.monotonic() < limit:
            await asyncio.sleep(_POLL_SECONDS)
        left = list(lines.values())
        for writer in lines:
            writer.transport.abort()
        await asyncio.gather(*left)


def answers(address: tuple[str, int], timeout: float) -> bool:
    """Whether calls to a host and port are taken within so many seconds."""
    try:
        socket.create_connection(address, timeout).close()
    except OSError:
        return False
    return True


def stay(address: tuple[str, int], words: bytes, timeout: float, ended: threading.Event) -> None:
    """Stays on the line to the first process until `ended`, and then says goodbye.

    Args:
      address: host and port where it listens.
      words: this process' `hello`; nothing, where it is not `watch` that listens.
      timeout: seconds within which a call must be taken.
      ended: when to hang up.

    Raises:
      OSError: if no call is taken, or not any more.
    """
    while not ended.is_set():
        with socket.create_connection(address, timeout) as line:
            line.settimeout(_POLL_SECONDS)
            with contextlib.suppress(OSError):
                line.sendall(words)
                while not ended.is_set() and not _has_hung_up(line):
                    pass
                if words:
                    line.sendall(_GOODBYE)
        ended.wait(_POLL_SECONDS)


def _has_hung_up(line: socket.socket) -> bool:
    """Whether the other has, within half a second; it may answer another call."""
    try:
        return not line.recv(1)
    except TimeoutError:
        return False
