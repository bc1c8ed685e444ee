"""Many runs at once: grids of configurations, shared work, workers, their records."""
