"""The setting that must stand before `prometheus_client` is imported."""

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Where all processes of the service count."""
