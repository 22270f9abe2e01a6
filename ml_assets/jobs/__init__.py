"""Scripts that run elsewhere and are started by Dagster: each is one file that imports nothing of this package."""
