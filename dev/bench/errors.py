class BenchError(Exception):
    """Something did not work, as opposed to being slow."""
