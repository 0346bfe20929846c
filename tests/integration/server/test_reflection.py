"""Reflection: both versions describe every service, so that tools need no .proto files."""

from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest as Question

from runtime.clock import ManualClock
from runtime.configuration import Configuration
from store.postgres.database import Database
from tests.support.server.running import Running, running

VERSIONS = ["grpc.reflection.v1", "grpc.reflection.v1alpha"]


async def ask(channel: grpc.aio.Channel, version: str, question: Question) -> Any:
    """The answer to one question of a reflection client."""
    method: Any = channel.stream_stream(
        f"/{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=Question.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    call = method()
    await call.write(question)
    answer = await call.read()
    await call.done_writing()
    assert await call.code() is grpc.StatusCode.OK
    return answer


def services_of(files: Any) -> set[str]:
    """The full names of the services that the described files define."""
    names = set()
    for data in files.file_descriptor_proto:
        file = descriptor_pb2.FileDescriptorProto.FromString(data)
        names |= {f"{file.package}.{service.name}" for service in file.service}
    return names


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_listed_service_is_described(api: Running, version: str) -> None:
    listed = await ask(api.channel, version, Question(list_services="*"))
    names = [service.name for service in listed.list_services_response.service]
    assert {"tidemark.v1.AccountService", "grpc.health.v1.Health"} <= set(names)
    assert {f"{version}.ServerReflection" for version in VERSIONS} <= set(names)
    for name in names:
        described = await ask(api.channel, version, Question(file_containing_symbol=name))
        assert name in services_of(described.file_descriptor_response)


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_unknown_symbol_is_not_found(api: Running, version: str) -> None:
    answer = await ask(api.channel, version, Question(file_containing_symbol="tidemark.v1.Nope"))
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_reflection_can_be_disabled(database: Database, clock: ManualClock) -> None:
    off = Configuration(listen_port=0, propagation_delay=0.0, reflection=False)
    async with running(database, clock, configuration=off) as server:
        channel: Any = server.channel
        for version in VERSIONS:
            call = channel.stream_stream(f"/{version}.ServerReflection/ServerReflectionInfo")()
            assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
