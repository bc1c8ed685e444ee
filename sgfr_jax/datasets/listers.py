"""What lists the images of each data set, by its name."""

from sgfr_jax.datasets.btad import list_btad
from sgfr_jax.datasets.demo import list_demo
from sgfr_jax.datasets.folder import list_folder
from sgfr_jax.datasets.mtd import list_mtd
from sgfr_jax.datasets.mvtec import list_mvtec
from sgfr_jax.datasets.mvtec2 import list_mvtec2
from sgfr_jax.datasets.visa import list_visa

# `(data_dir, categories=, split_seed=) -> categories`, and what else each takes.
DATASETS = {
    "btad": list_btad,
    "demo": list_demo,
    "folder": list_folder,
    "mtd": list_mtd,
    "mvtec": list_mvtec,
    "mvtec2": list_mvtec2,
    "visa": list_visa,
}
