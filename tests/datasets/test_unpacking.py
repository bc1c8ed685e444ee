"""Archives, whole ones and hostile ones."""

import io
import stat
import tarfile
import warnings
import zipfile

import pytest

from sgfr_jax import datasets
from sgfr_jax.datasets import DatasetError
from sgfr_jax.datasets.unpacking import unpack
from tests.datasets import trees


def _tar(root, *, top="", mode="w:xz"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as file:
        file.add(root, arcname=top or ".")
    return buffer.getvalue()


def _zip(root, top):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for path in sorted(root.rglob("*")):
            file.write(path, f"{top}/{path.relative_to(root)}")
    return buffer.getvalue()


def test_unpacking_a_tar(tmp_path):
    trees.mvtec(tmp_path / "made")
    (tmp_path / "a.tar.xz").write_bytes(_tar(tmp_path / "made"))
    unpack(tmp_path / "a.tar.xz", tmp_path / "mvtec")
    (bottle,) = datasets.load("mvtec", tmp_path / "mvtec")
    assert len(bottle.train) == 3


@pytest.mark.parametrize("kept", [0, 10, 500, 3000])
@pytest.mark.parametrize("kind", ["tar", "tar.xz", "tar.gz", "zip"])
def test_an_archive_cut_off_leaves_nothing(tmp_path, kind, kept):
    trees.mvtec(tmp_path / "made")
    mode = {"tar": "w", "tar.xz": "w:xz", "tar.gz": "w:gz"}.get(kind)
    content = _tar(tmp_path / "made", mode=mode) if mode else _zip(tmp_path / "made", "x")
    path = tmp_path / "here" / f"a.{kind}"
    path.parent.mkdir()
    path.write_bytes(content[:kept])
    with pytest.raises(DatasetError, match="cannot be unpacked"):
        unpack(path, path.parent / "target")
    assert [path.name for path in path.parent.iterdir()] == [f"a.{kind}"]


def _member(name, kind=tarfile.REGTYPE, link=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


def _refused(path, tmp_path, match="is not safe to unpack"):
    """Unpacks into a directory below; nothing may be left there, or beside it."""
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(DatasetError, match=match) as refused:
        unpack(path, path.parent / "target")
    assert "\n" not in str(refused.value)
    assert set(tmp_path.rglob("*")) == before | {path.parent}


_SYM, _HARD, _DIR = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
HOSTILE = {
    "above": [_member("../out.png")],
    "above by a way round": [_member("a/../../out.png")],
    "a directory above": [_member("../out", _DIR)],
    "absolute": [_member("/tmp/out.png")],
    "absolute twice": [_member("//tmp/out.png")],
    "backslashes": [_member("..\\out.png")],
    "drive": [_member("C:/out.png")],
    "link above": [_member("link", _SYM, "../../out")],
    "link to a file": [_member("link", _SYM, "/etc/passwd")],
    "link within": [_member("link", _SYM, "first.png")],
    "through a link": [_member("link", _SYM, ".."), _member("link/out.png")],
    "through a directory that becomes a link": [
        _member("d", _DIR), _member("d", _SYM, ".."), _member("d/out.png")
    ],
    "hard link": [_member("hard", _HARD, "../out")],
    "hard link within": [_member("hard", _HARD, "first.png")],
    "fifo": [_member("fifo", tarfile.FIFOTYPE)],
    "device": [_member("device", tarfile.CHRTYPE)],
    "twice": [_member("first.png")],
    "twice by another spelling": [_member(".//first.png")],
    "a file as a directory": [_member("first.png/second.png")],
    "a directory as a file": [_member("d", _DIR), _member("d")],
    "nothing": [_member(".")],
}  # fmt: skip


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
def test_a_tar_may_not_leave_its_directory(tmp_path, members):
    path = tmp_path / "here" / "a.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as file:
        for member in (_member("first.png"), *members):
            file.addfile(member)
    _refused(path, tmp_path)


def _pax(path):
    member = _member("placeholder")
    member.pax_headers = {"path": path}
    return member


@pytest.mark.parametrize(
    "member, said",
    [
        (_pax("a\0b"), r"'a\\x00b' has a name that no file can have\.$"),
        (_member("/".join("d" * 101)), r"d/\.\.\.' lies more than 100 directories deep\.$"),
        (_member("/".join("d" * 2000)), r"d/\.\.\.' lies more than 100 directories deep\.$"),
        (_member("a\n\x1b[2J", _SYM, "b"), r"'a\\n\\x1b\[2J' is a link\.$"),
    ],
    ids=["NUL", "deep", "very deep", "control characters"],
)
def test_names_that_no_file_should_have(tmp_path, member, said):
    path = tmp_path / "here" / "a.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as file:
        file.addfile(member)
    _refused(path, tmp_path, match=said)


def test_what_is_no_archive_is_said_in_one_line(tmp_path):
    path = tmp_path / "here" / "a.tar"
    path.parent.mkdir()
    path.write_bytes(b"<html>404</html>" * 100)
    said = r"cannot be unpacked \(file could not be opened successfully\); it is damaged"
    _refused(path, tmp_path, match=said)


def test_a_way_out_by_links_too_long_to_resolve(tmp_path):
    """CVE-2025-4517: tarfile gives up resolving at 4096 bytes, the system does not."""
    path = tmp_path / "here" / "a.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as file:
        way = ""
        for letter in "abcdefghijklmnop":
            file.addfile(_member(f"{way}{'d' * 247}", _DIR))
            file.addfile(_member(f"{way}{letter}", _SYM, "d" * 247))
            way += f"{letter}/"
        file.addfile(_member(f"{way}{'l' * 254}", _SYM, "../" * 16))
        file.addfile(_member("escape", _SYM, f"{way}{'l' * 254}/../../out"))
        file.addfile(_member("escape/out.png"))
    _refused(path, tmp_path, match=r"its member 'a' is a link\.$")


def _zipped(path, *members, create=None):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as file:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, mode in (("first.png", 0), *members):
            info = zipfile.ZipInfo("placeholder")
            info.filename, info.external_attr = name, mode << 16
            file.writestr(info, b"")


@pytest.mark.parametrize(
    "name,mode",
    [
        ("../out.png", 0), ("/out.png", 0), ("a/../../out.png", 0), ("C:/out.png", 0),
        ("..\\out.png", 0), ("C:\\out.png", 0), ("\\\\server\\out.png", 0), ("../", 0),
        ("link", stat.S_IFLNK | 0o777), ("fifo", stat.S_IFIFO), ("device", stat.S_IFCHR),
        ("first.png", 0), ("./first.png", 0), ("first.png/second.png", 0), ("first.png/", 0),
        ("", 0),
    ],
)  # fmt: skip
def test_a_zip_may_not_leave_its_directory(tmp_path, name, mode):
    path = tmp_path / "here" / "a.zip"
    path.parent.mkdir()
    _zipped(path, (name, mode))
    _refused(path, tmp_path)


def test_what_is_encrypted_is_named(tmp_path):
    path = tmp_path / "here" / "a.zip"
    path.parent.mkdir()
    _zipped(path, ("second.png", 0))
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.rindex(signature) + flags] |= 1
    path.write_bytes(content)
    _refused(path, tmp_path, match=r"its member 'second\.png' is encrypted")


def test_modes_and_repeated_directories_do_no_harm(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for name, kind in (("./d/", _DIR), ("d", _DIR), ("d/e/a.png", tarfile.REGTYPE)):
            member = _member(name, kind)
            member.mode, member.uid = 0o000, 12345
            file.addfile(member)
    unpack(tmp_path / "a.tar", tmp_path / "target")
    assert (tmp_path / "target" / "d" / "e" / "a.png").read_bytes() == b""


def test_what_is_there_already_is_left(tmp_path):
    _zipped(tmp_path / "a.zip")
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "mine.png").write_text("mine")
    with pytest.raises(DatasetError, match="cannot be unpacked to"):
        unpack(tmp_path / "a.zip", tmp_path / "target")
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["mine.png"]
    assert len(list(tmp_path.iterdir())) == 2
