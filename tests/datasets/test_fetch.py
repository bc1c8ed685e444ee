"""Downloading, from a server on this machine, and unpacking."""

import hashlib
import http.server
import io
import threading
import zipfile
from functools import partial

import pytest

from sgfr_jax import datasets, locks
from sgfr_jax.datasets import DatasetError, fetch
from sgfr_jax.datasets.archives import ARCHIVES, Archive, instructions
from tests.datasets import trees


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`; cuts the first `cuts` answers in half; logs the ranges asked for."""

    content, cuts, ranges_allowed, declare_length = b"", 0, True, True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []

    def handle_error(self, *_):
        pass  # a client that has seen enough hangs up


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        start = int(wanted[6:-1]) if wanted and server.ranges_allowed else 0
        body = server.content[start:]
        if self.path != "/archive":
            self.send_error(404)
            return
        self.send_response(206 if start else 200)
        if start:
            total = len(server.content)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if server.declare_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.cuts:
            server.cuts -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _archive(server, content, file="archive.tar", **changes):
    server.content = content
    archive = Archive(
        file,
        f"http://127.0.0.1:{server.server_port}/archive",
        len(content),
        hashlib.sha256(content).hexdigest(),
        "nobody",
        "http://page",
        "CC0",
    )
    return archive._replace(**changes)


CONTENT = bytes(range(256)) * 20_000
download = partial(fetch.download, pause=0.0)


def test_download(server, tmp_path):
    seen = []
    archive = _archive(server, CONTENT)
    download(archive, tmp_path / "a.tar", report=lambda *at: seen.append(at))
    assert (tmp_path / "a.tar").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]
    assert seen[-1] == ("verifying archive.tar", len(CONTENT), len(CONTENT))


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("length", [True, False])
def test_a_cut_download_goes_on(server, tmp_path, ranges, length):
    server.cuts, server.ranges_allowed, server.declare_length = 2, ranges, length
    download(_archive(server, CONTENT), tmp_path / "a.tar")
    assert (tmp_path / "a.tar").read_bytes() == CONTENT
    half = len(CONTENT) // 2
    assert server.asked[:2] == [None, f"bytes={half}-"]


def test_a_connection_that_is_cut_again_and_again_gets_there(server, tmp_path):
    server.cuts = 20
    download(_archive(server, CONTENT), tmp_path / "a.tar")
    assert (tmp_path / "a.tar").read_bytes() == CONTENT and len(server.asked) == 21


def test_what_has_come_is_kept_when_nothing_more_does(server, tmp_path, monkeypatch):
    part = tmp_path / "a.tar.sgfr_jax.part"
    part.write_bytes(CONTENT[:1000])
    monkeypatch.setattr(fetch, "_continue", lambda *args: None)
    with pytest.raises(DatasetError, match=r"\(it was cut off\)\. 1,000 bytes are kept"):
        download(_archive(server, CONTENT), tmp_path / "a.tar")
    assert part.read_bytes() == CONTENT[:1000]


def test_an_earlier_attempt_is_continued(server, tmp_path):
    (tmp_path / "a.tar.sgfr_jax.part").write_bytes(CONTENT[:1000])
    download(_archive(server, CONTENT), tmp_path / "a.tar")
    assert server.asked == ["bytes=1000-"]
    assert (tmp_path / "a.tar").read_bytes() == CONTENT


def test_what_a_browser_has_begun_is_left_alone(server, tmp_path):
    (tmp_path / "a.tar.part").write_bytes(b"of Firefox")
    with pytest.raises(DatasetError, match="gave something else"):
        download(_archive(server, CONTENT, sha256="0" * 64), tmp_path / "a.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.part"]
    assert (tmp_path / "a.tar.part").read_bytes() == b"of Firefox"


def test_two_downloads_at_once(server, tmp_path):
    part = tmp_path / "a.tar.sgfr_jax.part"
    with part.open("ab") as file:
        assert locks.take(file)
        with pytest.raises(DatasetError, match="is being downloaded by another process"):
            download(_archive(server, CONTENT), tmp_path / "a.tar")
    assert server.asked == []
    download(_archive(server, CONTENT), tmp_path / "a.tar")


def test_a_whole_part_is_not_asked_for_again(server, tmp_path):
    (tmp_path / "a.tar.sgfr_jax.part").write_bytes(CONTENT)
    download(_archive(server, CONTENT), tmp_path / "a.tar")
    assert server.asked == []


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    archive = _archive(server, CONTENT, sha256="0" * 64)
    with pytest.raises(
        DatasetError, match=r"has the SHA-256 [0-9a-f]{64}; 'archive.tar' has 0{64}"
    ):
        download(archive, tmp_path / "a.tar")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [len(CONTENT) - 7, len(CONTENT) + 7])
def test_a_wrong_size_is_known_before_anything_is_written(server, tmp_path, size):
    archive = _archive(server, CONTENT, size=size)
    with pytest.raises(DatasetError, match=r"5,120,000 bytes, but .* expected"):
        download(archive, tmp_path / "a.tar")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_sends_too_much_is_stopped(server, tmp_path):
    server.declare_length = False
    archive = _archive(server, CONTENT, size=1000)
    with pytest.raises(DatasetError, match="gave something else than expected"):
        download(archive, tmp_path / "a.tar")
    assert list(tmp_path.iterdir()) == []


def test_a_link_that_is_dead_says_what_to_do(server, tmp_path):
    archive = _archive(server, CONTENT)
    archive = archive._replace(url=archive.url + "s")
    with pytest.raises(DatasetError, match=r"cannot be downloaded \(HTTP Error 404.*\)\.\nHELP"):
        download(archive, tmp_path / "a.tar", help="HELP")
    assert len(server.asked) == 1


def test_no_network_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch.time, "sleep", lambda _: None)
    monkeypatch.setitem(
        ARCHIVES, "btad", ARCHIVES["btad"]._replace(url="http://127.0.0.1:9/btad.zip", size=9)
    )
    with pytest.raises(DatasetError, match="cannot be downloaded") as caught:
        fetch.obtain("btad", tmp_path / "btad", accept_license=True)
    assert caught.match("beanTech") and caught.match("licence") and caught.match("`data_dir`")
    assert list((tmp_path / "btad").iterdir()) == []


def test_no_room_is_known_before(server, tmp_path):
    archive = _archive(server, CONTENT, size=1 << 60)
    with pytest.raises(
        DatasetError, match=r"needs 1,152,921,504,606,846,976 bytes, and .* are free"
    ):
        download(archive, tmp_path / "a.tar")
    assert server.asked == []


@pytest.mark.parametrize("dataset", ARCHIVES)
def test_without_a_licence_accepted_one_message_says_all(tmp_path, dataset):
    with pytest.raises(DatasetError) as caught:
        fetch.obtain(dataset, tmp_path / "here")
    archive = ARCHIVES[dataset]
    for text in (archive.page, archive.publisher, archive.licence, archive.file, "here"):
        assert text in str(caught.value)
    assert ("`accept_license`" in str(caught.value)) == (archive.url is not None)
    assert not (tmp_path / "here").exists()


def test_what_has_no_checksum_is_not_downloaded(tmp_path):
    with pytest.raises(DatasetError, match="Put 'Magnetic-tile"):
        fetch.obtain("mtd", tmp_path, accept_license=True)
    for archive in ARCHIVES.values():
        assert (archive.url is None) == (archive.sha256 is None) == (archive.size is None)
        assert archive.sha256 is None or len(bytes.fromhex(archive.sha256)) == 32
    assert "SHA-256" not in instructions("mtd", "x")


def _zip(root, top):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for path in sorted(root.rglob("*")):
            file.write(path, f"{top}/{path.relative_to(root)}")
    return buffer.getvalue()


@pytest.fixture
def btad_zip(server, tmp_path, monkeypatch):
    content = _zip(trees.btad(tmp_path / "made"), "BTech_Dataset_transformed")
    monkeypatch.setitem(ARCHIVES, "btad", _archive(server, content, "btad.zip"))
    return content


def test_download_unpack_and_load(server, tmp_path, btad_zip):
    here = tmp_path / "data"
    first, *_ = datasets.load("btad", here, accept_license=True)
    assert first.train[0].name == "01/train/ok/0000.bmp"
    assert first.train[0].image.is_file()
    assert {path.name for path in here.iterdir()} == {"btad.zip", "btad"}
    datasets.load("btad", here, accept_license=True)
    assert len(server.asked) == 1


def test_an_archive_that_is_there_is_used(server, tmp_path, btad_zip):
    here = tmp_path / "data"
    here.mkdir()
    (here / "btad.zip").write_bytes(btad_zip)
    expected = here / "btad" / "BTech_Dataset_transformed"
    assert fetch.obtain("btad", here) == expected
    assert fetch.obtain("btad", expected) == expected
    (tmp_path / "other").mkdir()
    moved = (here / "btad.zip").rename(tmp_path / "other" / "mine.zip")
    assert fetch.obtain("btad", moved).parent == tmp_path / "other" / "btad"
    assert server.asked == []


def test_an_encrypted_archive(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "text")
    content = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(mark) + flags] |= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.zip' is not safe to unpack.*encrypted"):
        fetch.unpack(path, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [path]


def test_a_changed_archive_is_not_unpacked(tmp_path, btad_zip):
    here = tmp_path / "data"
    here.mkdir()
    (here / "btad.zip").write_bytes(btad_zip[:-1])
    with pytest.raises(DatasetError, match=r"btad\.zip' has .* bytes; 'btad\.zip' has"):
        fetch.obtain("btad", here)
    (here / "btad.zip").write_bytes(btad_zip[:-1] + b"?")
    with pytest.raises(DatasetError, match="It is damaged, or another version"):
        fetch.obtain("btad", here)
    assert [path.name for path in here.iterdir()] == ["btad.zip"]


def test_what_was_unpacked_in_part_by_hand_is_named(tmp_path, btad_zip):
    here = tmp_path / "data"
    (here / "btad" / "01").mkdir(parents=True)
    (here / "btad.zip").write_bytes(btad_zip)
    with pytest.raises(DatasetError, match="perhaps for having been unpacked in part"):
        fetch.obtain("btad", here)
