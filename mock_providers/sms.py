# Kept only until tests/integration/sender imports SMS from mock_providers.registry.
from mock_providers.registry import SMS

__all__ = ["SMS"]
