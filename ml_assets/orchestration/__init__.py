"""WHEN: the only package that imports dagster. `pipeline` is its table of contents."""
