"""What encrypts the secrets of endpoints."""

import logging

from runtime.actions import LogAction
from runtime.configuration import Configuration
from runtime.master_keys import master_keys
from webhooks.secret_box import SecretBox, box_of

logger = logging.getLogger(__name__)


def secret_box(configuration: Configuration) -> SecretBox | None:
    """Encrypts secrets; None where the operator has set no master key."""
    box = box_of(master_keys(configuration))
    if box is None:
        logger.warning(
            "no endpoint can be created: set TIDEMARK_SECRET_KEYS, the keys that encrypt webhook secrets",
            extra={"action": LogAction.NO_SECRET_KEY},
        )
    return box
