"""What runs around every call, one concern in each module; `server.listener` sets their order."""
