"""Client library of the contract: a connection, a usage stream and a notification stream that survive interruptions.

It imports only gRPC, the generated code and `runtime`, and knows nothing of the command line.
"""

from cli.client.batches import Batch
from cli.client.connection import Address
from cli.client.notification_stream import NotificationStream
from cli.client.usage_stream import ConnectionLost, UsageStream

__all__ = ["Address", "Batch", "ConnectionLost", "NotificationStream", "UsageStream"]
