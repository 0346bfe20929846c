"""The client side of the contract: connection, usage stream, notification stream."""
