"""The labels of measured calls."""

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from prometheus_client import generate_latest

from proto.documents.contract import METHODS
from runtime.monitoring.instruments import Instruments
from server.calls.monitoring import OTHER, CallMonitoring


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_each_method_of_the_contract_has_a_label_of_its_own(method: MethodDescriptor) -> None:
    instruments = Instruments()
    name = f"{method.containing_service.full_name}/{method.name}"
    CallMonitoring(instruments).begin(f"/{name}", None).end(grpc.StatusCode.OK, None)
    text = generate_latest(instruments.registry).decode()
    assert f'rpc_method="{name}"' in text
    assert OTHER not in text
