"""Getting an official archive: downloading, verifying and unpacking it, or doing nothing."""

import hashlib
import http.client
import lzma
import shutil
import ssl
import stat
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from sgfr_jax import unfinished
from sgfr_jax.datasets.archives import ARCHIVES, Archive, instructions
from sgfr_jax.datasets.listing import subdirectories
from sgfr_jax.datasets.recognition import recognise
from sgfr_jax.datasets.types import DatasetError

Report = Callable[[str, int, int], None]  # what is done, and how many bytes of how many

_CHUNK = 1 << 20
_TIMEOUT = 60.0  # seconds without a byte
# A link that is dead stays so, but connections over which gigabytes come are cut now and then.
_ATTEMPTS = 3  # that bring nothing
_NETWORK_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    ssl.SSLError,
    ConnectionError,
    TimeoutError,
)
_ARCHIVE_ERRORS = (
    EOFError,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,  # encrypted, or of a compression that zipfile does not know
)


def silent(what: str, done: int, total: int) -> None:
    """Reports nothing."""
    del what, done, total


def obtain(
    dataset: str, data_dir: Path, *, accept_license: bool = False, report: Report = silent
) -> Path:
    """Returns the directory of the data set's files, unpacked and downloaded where necessary.

    `data_dir` may be that directory, the directory above it, the official archive, or a directory
    that holds the archive; an archive is unpacked beside itself, into a directory named for the
    data set. What is there already is used as it is, and nothing is written.

    Args:
      dataset: a key of `ARCHIVES`.
      data_dir: see above; it is made if something is downloaded into it.
      accept_license: whether to download; the caller has read the licence and accepts it.
      report: called as downloading and verifying get on.

    Raises:
      DatasetError: there is nothing to use, and the message says what to fetch from whom; or the
        archive is not the official one, or is damaged.
    """
    archive = ARCHIVES[dataset]
    packed = data_dir if data_dir.is_file() else data_dir / archive.file
    target = packed.parent / dataset
    found = _unpacked(dataset, data_dir) or _unpacked(dataset, target)
    if found is not None:
        return found
    if not packed.is_file():
        if not accept_license or archive.url is None:
            raise DatasetError(
                f"there is no data set '{dataset}' in '{data_dir}'.\n"
                + instructions(dataset, data_dir)
            )
        data_dir.mkdir(parents=True, exist_ok=True)
        download(archive, packed, report=report, help=instructions(dataset, data_dir))
    elif archive.sha256 is not None:
        verify(archive, packed, report=report)
    if target.exists():
        raise DatasetError(
            f"'{target}' exists, but is not data set '{dataset}', perhaps for having been unpacked "
            f"in part; remove it and '{packed}' is unpacked again."
        )
    unpack(packed, target)
    found = _unpacked(dataset, target)
    if found is None:
        raise DatasetError(f"'{packed}' was unpacked to '{target}', but is not '{dataset}'.")
    return found


def download(
    archive: Archive,
    path: Path,
    *,
    report: Report = silent,
    help: str = "",
    pause: float = 2.0,
) -> None:
    """Downloads an archive to `path`, going on where an earlier attempt was cut.

    What has come so far is kept in `path` with `.part` appended; `path` itself appears only when
    size and checksum are right.

    Args:
      archive: what to download.
      path: the file to make, in an existing directory.
      report: called after each megabyte.
      help: appended to a message that the network is not there.
      pause: seconds to wait after a cut, doubled each time that nothing came.
    """
    part = path.with_name(path.name + ".part")
    free = shutil.disk_usage(path.parent).free
    have = _size(part)
    if free < archive.size - have:
        raise DatasetError(
            f"'{path}' needs {archive.size - have:,} bytes, and {free:,} are free there."
        )
    failures = 0  # in a row: a slow connection that brings something each time goes on
    while (have := _size(part)) < archive.size:
        error: Exception | str = "it was cut off"
        try:
            _continue(archive, part, have, report)
        except _NETWORK_ERRORS as found:
            error = found
        failures = 0 if _size(part) > have else failures + 1
        refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
        if refused or failures == _ATTEMPTS:
            kept = f" {_size(part):,} bytes are kept, and the same goes on there." if have else ""
            raise DatasetError(f"{archive.url} cannot be downloaded ({error}).{kept}\n{help}")
        if _size(part) < archive.size:
            time.sleep(pause * 2**failures)
    try:
        verify(archive, part, report=report)
    except DatasetError as error:
        part.unlink()
        raise DatasetError(
            f"{archive.url} gave something else than expected, and it was removed: {error}"
        ) from None
    part.replace(path)


def verify(archive: Archive, path: Path, *, report: Report = silent) -> None:
    """Raises `DatasetError` unless the file has the archive's size and checksum."""
    size = path.stat().st_size
    if size != archive.size:
        raise DatasetError(
            f"'{path}' has {size:,} bytes; '{archive.file}' has {archive.size:,}. It may be an "
            "incomplete download; remove it and fetch it again."
        )
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
            done += len(block)
            report(f"verifying {archive.file}", done, size)
    if digest.hexdigest() != archive.sha256:
        raise DatasetError(
            f"'{path}' has the SHA-256 {digest.hexdigest()}; '{archive.file}' has "
            f"{archive.sha256}. It is damaged, or another version; remove it and fetch it again."
        )


def unpack(path: Path, target: Path) -> None:
    """Unpacks a tar or zip archive to the new directory `target`, all of it or nothing.

    A member that would come to lie outside, and one that is neither file nor directory (nor a
    link within), makes the whole archive refused.
    """
    staging = target.with_name(unfinished.name_for(target.name))
    for left in (staging, *unfinished.abandoned(target.parent, target.name)):
        shutil.rmtree(left, ignore_errors=True)
    staging.mkdir()
    try:
        if zipfile.is_zipfile(path):
            _unpack_zip(path, staging)
        else:
            with tarfile.open(path) as file:
                file.extractall(staging, filter="data")
        staging.rename(target)
    except tarfile.FilterError as error:
        raise DatasetError(f"'{path}' is not safe to unpack: {error}.") from error
    except _ARCHIVE_ERRORS as error:
        raise DatasetError(
            f"'{path}' cannot be unpacked ({error}); it is damaged, cut off, encrypted, or no"
            " archive."
        ) from error
    except OSError as error:
        raise DatasetError(f"'{path}' cannot be unpacked to '{target}': {error}.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _unpacked(dataset: str, data_dir: Path) -> Path | None:
    if not data_dir.is_dir():
        return None
    if recognise(data_dir) == dataset:
        return data_dir
    below = [path for path in subdirectories(data_dir) if recognise(path) == dataset]
    return below[0] if len(below) == 1 else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _continue(archive: Archive, part: Path, have: int, report: Report) -> None:
    """Appends to `part` until the connection ends."""
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(archive.url, headers=headers)
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
        if response.status != 206:
            have = 0  # the server sends it from the beginning
        length = response.headers.get("Content-Length")
        if length is not None and have + int(length) != archive.size:
            raise DatasetError(
                f"{archive.url} has {have + int(length):,} bytes, but {archive.size:,} were "
                "expected: it has been changed, or is not the archive. Nothing was downloaded."
            )
        with part.open("r+b" if have else "wb") as file:
            file.seek(have)
            # One byte more than expected is enough to know that it is something else.
            while have <= archive.size and (block := response.read(_CHUNK)):
                file.write(block)
                have += len(block)
                report(f"downloading {archive.file}", have, archive.size)


def _unpack_zip(path: Path, target: Path) -> None:
    with zipfile.ZipFile(path) as file:
        for member in file.infolist():
            parts = member.filename.replace("\\", "/").split("/")
            if member.filename.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
                raise DatasetError(
                    f"'{path}' is not safe to unpack: its member '{member.filename}' would come "
                    "to lie outside."
                )
            if stat.S_ISLNK(member.external_attr >> 16):
                raise DatasetError(
                    f"'{path}' is not safe to unpack: its member '{member.filename}' is a link."
                )
        file.extractall(target)
