"""Which master keys a process has: those of the configuration, or the key file beside the embedded database."""

from runtime.configuration import Configuration
from store.secrets import SecretBox, local_key


def secret_box(configuration: Configuration) -> SecretBox | None:
    """The box of this process; None when the database is not the embedded one and no key is configured.

    A key file for a database elsewhere would be lost with this machine, and every secret with it.
    Raises ValueError when the key file holds no key.
    """
    if configuration.secret_keys:
        return SecretBox(configuration.secret_keys)
    if configuration.database_url is None:
        return SecretBox([local_key(configuration.data_directory)])
    return None
