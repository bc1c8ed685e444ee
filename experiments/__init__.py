"""Entry points that own flags, files, devices and progress; run from a checkout."""
