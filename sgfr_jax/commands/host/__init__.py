"""The machine that a command runs on: devices, processes, memory, signals, the terminal."""
