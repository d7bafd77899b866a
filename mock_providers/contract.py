# Kept only until tests/providers.py imports Channel from mock_providers.api.
from mock_providers.api import Channel as Contract

__all__ = ["Contract"]
