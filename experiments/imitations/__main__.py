"""Writes four made products, to be run as photographs of one's own.

python -m experiments.imitations --output=imitations
python -m experiments.run --dataset=folder --data_dir=imitations
"""

import argparse
import sys
from pathlib import Path

from experiments.imitations import products


def main() -> None:
    """Writes the images that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", required=True, type=Path, help="a directory to make")
    parser.add_argument("--seed", type=int, default=0, help="of all images")
    options = parser.parse_args()
    try:
        products.write(options.output, options.seed)
    except FileExistsError:
        sys.exit(f"error: --output={options.output} is there already: name a directory to make")
    print(f"Written to {options.output}: {', '.join(sorted(products.PRODUCTS))}")


if __name__ == "__main__":
    main()
