"""Small trees of files in each data set's exact layout, endings and oddities included."""

from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 24, 32


def image(seed: int, *, grey: bool = False) -> np.ndarray:
    """Noise, uint8 `[24, 32]` or `[24, 32, 3]`."""
    shape = (HEIGHT, WIDTH) if grey else (HEIGHT, WIDTH, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def mask(value: int = 255) -> np.ndarray:
    """A block of `value` on zero, uint8 `[24, 32]`."""
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[4:12, 8:20] = value
    return pixels


def save(path: Path, pixels: np.ndarray) -> None:
    """Writes an image in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def mvtec(root: Path, category: str = "bottle", *, grey: bool = False) -> Path:
    """MVTec AD: `000.png` and `000_mask.png`; three categories are grey."""
    for i in range(3):
        save(root / category / f"train/good/{i:03d}.png", image(i, grey=grey))
    save(root / category / "test/good/000.png", image(10, grey=grey))
    for i in range(2):
        save(root / category / f"test/broken_large/{i:03d}.png", image(20 + i, grey=grey))
        save(root / category / f"ground_truth/broken_large/{i:03d}_mask.png", mask())
    (root / category / "license.txt").write_text("CC BY-NC-SA 4.0")
    return root


def btad(root: Path) -> Path:
    """BTAD: the images of 01 and 03 are .bmp, with masks of either ending."""
    for product, ending, mask_ending in (
        ("01", "bmp", "png"),
        ("02", "png", "png"),
        ("03", "bmp", "bmp"),
    ):
        for i in range(3):
            save(root / product / f"train/ok/{i:04d}.{ending}", image(i))
        save(root / product / f"test/ok/0000.{ending}", image(10))
        save(root / product / f"test/ko/0000.{ending}", image(11))
        save(root / product / f"ground_truth/ko/0000.{mask_ending}", mask())
    return root


def visa(root: Path) -> Path:
    """VisA: uppercase .JPG, masks with small codes, the split in a table."""
    rows = ["object,split,label,image,mask"]
    for name in ("candle", "pcb1"):
        for i in (2, 0, 1, 3):
            path = f"{name}/Data/Images/Normal/{i:04d}.JPG"
            save(root / path, image(i))
            rows.append(f"{name},{'test' if i == 3 else 'train'},normal,{path},")
        path = f"{name}/Data/Images/Anomaly/000.JPG"
        save(root / path, image(20))
        save(root / f"{name}/Data/Masks/Anomaly/000.png", mask(3))
        rows.append(f"{name},test,anomaly,{path},{name}/Data/Masks/Anomaly/000.png")
        (root / name / "image_anno.csv").write_text("image,label,mask\n")
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\n".join(rows) + "\n")
    (root / "split_csv/2cls_fewshot.csv").write_text("object,split,label,image,mask\n")
    (root / "LICENSE-DATASET").write_text("CC BY 4.0")
    return root


def mvtec2(root: Path) -> Path:
    """MVTec AD 2: a validation set, lighting in the names, private sets without labels."""
    for name, grey in (("can", False), ("vial", True)):
        for i in range(3):
            save(root / name / f"train/good/{i:03d}_regular.png", image(i, grey=grey))
        save(root / name / "validation/good/000_regular.png", image(5, grey=grey))
        for light in ("regular", "overexposed", "shift_1"):
            save(root / name / f"test_public/good/000_{light}.png", image(10, grey=grey))
            save(root / name / f"test_public/bad/000_{light}.png", image(11, grey=grey))
            masks = root / name / "test_public/ground_truth/bad"
            save(masks / f"000_{light}_mask.png", mask())
        save(root / name / "test_private/000_regular.png", image(12, grey=grey))
        save(root / name / "test_private_mixed/000_mixed.png", image(13, grey=grey))
    (root / "readme.txt").write_text("")
    return root


def mtd(root: Path, *, free: int = 10) -> Path:
    """MTD: grey JPEGs, each with an antialiased mask beside it; one mask is empty."""
    for kind in ("Blowhole", "Break", "Crack", "Fray", "Free", "Uneven"):
        for i in range(free if kind == "Free" else 1):
            stem = root / f"MT_{kind}/Imgs/exp1_num_{i}"
            save(stem.with_suffix(".jpg"), image(i, grey=True))
            pixels = mask()
            pixels[4] = 100  # antialiased
            save(stem.with_suffix(".png"), pixels * (kind not in ("Free", "Uneven")))
    return root


TREES = {"btad": btad, "mtd": mtd, "mvtec": mvtec, "mvtec2": mvtec2, "visa": visa}
