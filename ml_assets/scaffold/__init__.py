"""A new use case from a file of events: what can be inferred from it, and the five files that declare the case."""
