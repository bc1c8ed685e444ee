"""Entry points that own flags, files, devices and progress; run from a checkout."""

from experiments import gpu, processor

processor.avoid_slow_sort()
gpu.avoid_slow_autotuning()
