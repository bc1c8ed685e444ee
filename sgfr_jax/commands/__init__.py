"""The commands: the one place of flags, files, progress, devices and processes."""
