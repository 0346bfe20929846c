"""Which services this server has, and what their handlers are given."""

from dataclasses import dataclass

import grpc

from generated.tidemark.v1 import account_service_pb2, account_service_pb2_grpc
from runtime.clock import Clock
from runtime.configuration import Configuration
from server.account_service import AccountService
from server.lifecycle import Drain
from store.database import Database


@dataclass(frozen=True)
class Dependencies:
    """What handlers work with; one of each in a process."""

    configuration: Configuration
    database: Database
    clock: Clock
    drain: Drain


def register(server: grpc.aio.Server, dependencies: Dependencies) -> tuple[str, ...]:
    """Adds every service of the API to the server; returns their full names."""
    account_service_pb2_grpc.add_AccountServiceServicer_to_server(
        AccountService(dependencies.database, dependencies.clock), server
    )
    return (account_service_pb2.DESCRIPTOR.services_by_name["AccountService"].full_name,)
