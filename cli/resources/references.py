"""Remarks about what a stored resource names and the organization does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from cli.connection.problems import as_failed
from cli.console import named, print_progress, warn
from cli.resources import contract

if TYPE_CHECKING:
    from cli.connection.channels import Caller
    from cli.resources.execution import Run


def warn_of_unknown_plan(run: Run, server: Caller, request: Any) -> None:
    """Prints a warning when a subscription is put on a plan that does not exist: the server accepts it."""
    if run.resource.name != "subscriptions" or not run.whole:
        return
    plan_id = getattr(request, run.whole).plan_id
    if not plan_id:
        return
    method = contract.method("AccountService/GetPlan")
    wanted = contract.new(method.input_type)
    wanted.plan_id = plan_id
    try:
        server.call(method, wanted)
    except grpc.RpcError as error:
        # Whatever else is wrong is no reason to report a subscription that is stored as failed.
        if as_failed(error).code() is grpc.StatusCode.NOT_FOUND:
            print_progress(
                f"{warn('warning')} there is no plan {plan_id}; it could be misspelt. To create it:"
                f" {named(f'tidemark plans create {plan_id}')}"
            )
