"""The command `tidemark export`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from cli.connection.options import server_options
from cli.sections import SectionCommand

if TYPE_CHECKING:
    from cli.apply.kinds import Kind
    from cli.client.connection import Address
    from cli.connection.channels import Caller

NAMES = ("metrics", "plans", "limits", "recharge-policies", "alerts", "endpoints")
HEADER = "# What `tidemark export` printed; `tidemark apply -f FILE` brings a server to it.\n"


@click.command(cls=SectionCommand)
@click.argument("kinds", nargs=-1, type=click.Choice(NAMES), metavar="[KIND]…")
@click.option("--owner", metavar="NAME", help="Only alerts and endpoints that `tidemark apply` owns under this name.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of YAML; `apply` reads both.")
@server_options
def export(kinds: tuple[str, ...], owner: str | None, as_json: bool, address: Address) -> None:
    """Print what is there as a file for `tidemark apply`.

    KIND is metrics, plans, limits, recharge-policies, alerts or endpoints; all without one. Applying the file to the
    same server says "no changes". Archived alerts and endpoints of `tidemark listen` are left out, and so are secrets
    and credentials of endpoints, which the server never shows.
    """
    import grpc

    from cli.apply.kinds import chosen
    from cli.connection.channels import caller
    from cli.connection.problems import as_failed, problem_of
    from cli.yaml_text import yaml_of

    document: dict[str, list[Any]] = {}
    with caller(address) as server:
        try:
            for kind in chosen(kinds):
                found = _items(server, kind, owner)
                if found or kinds:
                    document[kind.name] = found
        except grpc.RpcError as error:
            raise problem_of(as_failed(error), address) from None
    if as_json:
        click.echo(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        click.echo(HEADER + yaml_of(document), nl=False)


def _items(server: Caller, kind: Kind, owner: str | None) -> list[Any]:
    from cli.apply.kinds import OWNER_LABEL
    from cli.resources import contract
    from cli.resources.documents import tree_of

    method = contract.method(kind.reads)
    request = contract.new(method.input_type)
    request.page_size = 1_000
    if owner is not None and kind.has_labels:
        request.labels[OWNER_LABEL] = owner
    items = contract.items_field(method.output_type)
    assert items is not None
    found: list[Any] = []
    while True:
        answer = server.call(method, request)
        found += getattr(answer, items.name)
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    declared = sorted((kind.declared(one) for one in found if kind.can_be_declared(one)), key=kind.key)
    return [tree_of(one, json_names=False) for one in declared]
