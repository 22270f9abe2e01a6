"""What `benchmarks/serving.py` measures: this service, others with the same model, and the load."""
