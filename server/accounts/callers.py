"""AccountService: who the caller is."""

from generated.tidemark.v1 import account_service_pb2 as messages
from generated.tidemark.v1 import role_pb2
from server.calls.context import Context
from server.calls.current_call import current_caller
from server.calls.validation import to_timestamp


class CallerHandlers:
    """Serves GetCaller. It reads nothing: the call was authenticated before."""

    async def GetCaller(self, request: messages.GetCallerRequest, context: Context) -> messages.GetCallerResponse:
        """The organization and the key of this call."""
        caller = current_caller()
        expire_time = None if caller.expire_time is None else to_timestamp(caller.expire_time)
        return messages.GetCallerResponse(
            organization=caller.organization.name,
            key_id=caller.key_id,
            key_display_name=caller.display_name,
            roles=sorted(role_pb2.Role.Value(f"ROLE_{role}") for role in caller.roles),
            customer_id=caller.customer_id,
            expire_time=expire_time,
        )
