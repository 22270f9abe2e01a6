"""WHERE rows come FROM."""
