"""The command `tidemark version`."""

from __future__ import annotations

import json
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING

import click

from cli.connection.options import server_options
from cli.console import print_progress, print_result, warn

if TYPE_CHECKING:
    from cli.client.connection import Address

METHOD = "AccountService/GetQuotas"  # every role may call it; its trailing metadata has the version of the server
VERSION_KEY = "tidemark-version"
UNKNOWN = "does not say its version: it is older than this command,"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_options
def version(as_json: bool, address: Address) -> None:
    """Print the versions of this command and of the server.

    The server shows its version to callers with a key, of whatever role. `tidemark --version` asks no server.
    """
    own = version_of("tidemark")
    if not as_json:
        print_result(f"tidemark  {own}")
    theirs = _of_server(address)
    if as_json:
        click.echo(json.dumps({"client": own, "server": theirs, "address": address.server}))
        return
    print_result(f"server    {theirs or UNKNOWN} at {address.server}")
    if theirs and theirs != own:
        print_progress(f"{warn('note')} the versions differ: commands of newer methods may be refused")


def _of_server(address: Address) -> str:
    """The version of the server; empty if it does not say. Raises Problem."""
    import grpc

    from cli.connection.channels import caller
    from cli.connection.problems import as_failed, problem_of
    from cli.resources import contract

    method = contract.method(METHOD)
    with caller(address) as server:
        try:
            metadata = server.trailing_metadata(method, contract.new(method.input_type))
        except grpc.RpcError as error:
            raise problem_of(as_failed(error), address) from None
    return str(metadata.get(VERSION_KEY, ""))
