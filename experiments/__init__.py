"""Entry points that own flags, files, devices and progress; run from a checkout."""

from experiments import processor

processor.avoid_slow_sort()
