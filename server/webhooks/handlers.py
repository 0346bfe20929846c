"""What the handlers of every webhook resource work with."""

from datetime import datetime
from typing import Any, cast

import grpc

from generated.tidemark.v1 import error_reason_pb2
from runtime.clock import Clock
from server.calls.errors import FailedPrecondition, NotFound
from server.calls.paging import Page
from store.postgres.database import Database
from webhooks.secret_box import SecretBox
from webhooks.url_policy import UrlPolicy

Context = grpc.aio.ServicerContext[Any, Any]

BY_TIME = (datetime, str)  # the cursor of lists that are sorted by create_time and id


class Handlers:
    """Holds what handlers need. `box` is None where the operator has given no key: then nothing can be sealed."""

    def __init__(self, database: Database, clock: Clock, policy: UrlPolicy, box: SecretBox | None) -> None:
        self._database = database
        self._clock = clock
        self._policy = policy
        self._box = box

    def _sealing_box(self) -> SecretBox:
        """The box; raises FailedPrecondition where there is none."""
        if self._box is None:
            raise FailedPrecondition(
                error_reason_pb2.ERROR_REASON_NO_SECRET_KEY,
                "the service has no key to encrypt secrets with, and stores none in plain text:"
                " the operator has to set TIDEMARK_SECRET_KEYS for the server and the notifier",
                metadata={"setting": "TIDEMARK_SECRET_KEYS"},
            )
        return self._box


def time_and_id(page: Page) -> tuple[datetime, str] | None:
    """Where a list that is sorted by create_time and id goes on."""
    return cast("tuple[datetime, str] | None", page.after)


def no_endpoint(endpoint_id: str) -> NotFound:
    """The error of an endpoint that is not there."""
    return NotFound(
        error_reason_pb2.ERROR_REASON_ENDPOINT_NOT_FOUND,
        f"there is no endpoint {endpoint_id!r}, or it was deleted",
        metadata={"endpoint_id": endpoint_id},
    )


def no_delivery(delivery_id: str) -> NotFound:
    """The error of a delivery that is not there."""
    return NotFound(
        error_reason_pb2.ERROR_REASON_DELIVERY_NOT_FOUND,
        f"there is no delivery {delivery_id!r}",
        metadata={"delivery_id": delivery_id},
    )
