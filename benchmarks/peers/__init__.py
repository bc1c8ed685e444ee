"""What runs in the peers' interpreter: torch and what builds on it, and nothing of ours but timing.

Each module holds functions that a benchmark names to `workers.Peers.contender`.
"""
