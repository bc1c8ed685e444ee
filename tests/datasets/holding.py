"""A process that imports next to nothing."""

import time


def hold(path, opened):
    with open(path, "wb"):
        opened.set()
        time.sleep(60)
