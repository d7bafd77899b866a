class ChaosError(Exception):
    """A scenario could not be run, so nothing is known about the services."""


class NotPossibleError(ChaosError):
    """A scenario cannot be played on this machine."""
