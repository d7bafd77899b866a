class BenchError(Exception):
    """Something failed, as opposed to being slow."""
