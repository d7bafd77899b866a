class ChaosError(Exception):
    """A fault could not be injected, or what was to run did not: nothing is known about the services."""
