"""HOW: pure functions, one module a stage."""
