"""The official archives: where each is, how large, and the checksum that tells it."""

from typing import NamedTuple


class Archive(NamedTuple):
    """An archive as its publisher offers it."""

    file: str
    url: str | None  # None: there is no direct file whose checksum is known
    size: int | None  # bytes
    sha256: str | None
    publisher: str
    page: str
    licence: str


# The publishers give no checksums. These are anomalib's (the `DownloadInfo` of its data modules
# btech, mvtecad, mvtecad2 and visa, Apache-2.0, as of 2026); the sizes, and again the checksums,
# were reported by others who fetched the files (public repositories, August 2026). MTD is a Git
# repository: what GitHub packs of it has no lasting checksum, so it is not downloaded.
ARCHIVES: dict[str, Archive] = {
    "btad": Archive(
        "btad.zip",
        "https://avires.dimi.uniud.it/papers/btad/btad.zip",
        1_229_193_337,
        "461c9387e515bfed41ecaae07c50cf6b10def647b36c9e31d239ab2736b10d2a",
        "beanTech and the University of Udine",
        "https://avires.dimi.uniud.it/papers/btad/btad.zip",
        "none stated with the archive; ask the authors",
    ),
    "mtd": Archive(
        "Magnetic-tile-defect-datasets.-master.zip",
        None,
        None,
        None,
        "Huang, Qiu, Guo, Wang and Yuan",
        "https://github.com/abin24/Magnetic-tile-defect-datasets.",
        "none stated; the authors ask for a citation",
    ),
    "mvtec": Archive(
        "mvtec_anomaly_detection.tar.xz",
        "https://www.mydrive.ch/shares/150996/b52ecdcbf521176e9db9c731f2304b27/download/"
        "420938113-1629960298/mvtec_anomaly_detection.tar.xz",
        5_264_982_680,
        "cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
        "MVTec Software GmbH",
        "https://www.mvtec.com/company/research/datasets/mvtec-ad",
        "CC BY-NC-SA 4.0",
    ),
    "mvtec2": Archive(
        "mvtec_ad_2.tar.gz",
        "https://www.mydrive.ch/shares/150997/701c90d3aea6588f404936e32a674602/download/"
        "466712769-1743429042/mvtec_ad_2.tar.gz",
        32_739_596_982,
        "c0ded99ef32bfc8e352d52beb44515e5b292b8598cb963aadfa91ca0763505e4",
        "MVTec Software GmbH",
        "https://www.mvtec.com/company/research/datasets/mvtec-ad-2",
        "CC BY-NC-SA 4.0",
    ),
    "visa": Archive(
        "VisA_20220922.tar",
        "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",
        1_929_840_640,
        "2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
        "Amazon",
        "https://github.com/amazon-science/spot-diff",
        "CC BY 4.0",
    ),
}


def instructions(dataset: str, data_dir: object) -> str:
    """Returns what to fetch, from whom, under which licence, and where to put it."""
    archive = ARCHIVES[dataset]
    lines = [
        f"Data set '{dataset}' is published by {archive.publisher} (licence: {archive.licence}):",
        f"  {archive.page}",
        f"Put '{archive.file}', or what it holds, into '{data_dir}' (`data_dir`).",
    ]
    if archive.url is not None:
        lines += [
            f"  {archive.size:,} bytes, SHA-256 {archive.sha256}",
            "Or let it be downloaded from",
            f"  {archive.url}",
            "by passing `accept_license`, which says that you have read the licence and accept it.",
        ]
    return "\n".join(lines)
