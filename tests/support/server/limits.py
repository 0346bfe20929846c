"""The limits of the servers of one test."""

import pytest

from server.limits import ServerLimits


def with_server_limits(limits: ServerLimits) -> pytest.MarkDecorator:
    """The mark of a test whose servers have these limits: it overrides the fixture `server_limits`."""
    return pytest.mark.parametrize("server_limits", [limits], ids=[pytest.HIDDEN_PARAM])
