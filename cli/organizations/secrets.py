"""The commands `tidemark secrets …`: the stored secrets of webhooks."""

import asyncio

import click

from cli.console import Problem, named, print_result
from cli.organizations.audit import record_reencryption
from cli.serving.settings import configuration, configure_logs, prepared_database, unreachable_database
from runtime.master_keys import KeyFileUnusable, master_keys
from store.endpoints import credentials as endpoint_credentials
from store.endpoints import secrets as endpoint_secrets
from store.postgres.database import Database, DatabaseUnavailable
from webhooks.secret_box import CannotOpen, SecretBox, box_of

POOL_SIZE = 1  # connections
BATCH_LIMIT = 200  # rows of one transaction


@click.group()
def secrets() -> None:
    """Manage webhook secrets, which are stored encrypted."""


@secrets.command()
def reencrypt() -> None:
    """Encrypt every stored secret with the first key of TIDEMARK_SECRET_KEYS.

    To replace a key: put the new key in front of the old one, restart servers and notifiers, run this command, then
    remove the old key. The command can run while they run, and can be repeated after an interruption.
    """
    settings = configuration()
    configure_logs(settings)
    url = prepared_database(settings)
    try:
        box = box_of(master_keys(settings))
    except KeyFileUnusable as error:
        raise Problem(str(error)) from None
    if box is None:
        raise Problem(
            "there is no key to encrypt with",
            ["set TIDEMARK_SECRET_KEYS=id:base64, with the output of: openssl rand -base64 32"],
        )
    try:
        secret_count, credential_count = asyncio.run(_reencrypt(url, box))
    except DatabaseUnavailable as error:
        raise unreachable_database(url, error) from None
    except CannotOpen as error:
        raise Problem(
            f"a stored secret cannot be decrypted: {error}",
            ["add the key that encrypted it to TIDEMARK_SECRET_KEYS; the secrets before it are encrypted already"],
        ) from None
    print_result(
        f"encrypted with {named(box.key_id)}: {secret_count} signing secrets,"
        f" {credential_count} credentials; the others were encrypted with it already"
    )


async def _reencrypt(url: str, box: SecretBox) -> tuple[int, int]:
    """Encrypts the stored secrets, then the stored credentials; returns how many of each had another key."""
    database = Database(url, POOL_SIZE)
    try:
        secret_count, after = 0, (0, "", 0)
        while True:
            async with database.transaction() as connection:
                numbers, last = await endpoint_secrets.reencrypt(connection, box, after, BATCH_LIMIT)
                await record_reencryption(connection, signing_secrets=numbers)
            secret_count += numbers.total()
            if last is None:
                break
            after = last
        credential_count, after_endpoint = 0, (0, "")
        while True:
            async with database.transaction() as connection:
                numbers, last_endpoint = await endpoint_credentials.reencrypt_credentials(
                    connection, box, after_endpoint, BATCH_LIMIT
                )
                await record_reencryption(connection, credentials=numbers)
            credential_count += numbers.total()
            if last_endpoint is None:
                return secret_count, credential_count
            after_endpoint = last_endpoint
    finally:
        await database.close()
