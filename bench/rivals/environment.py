"""The rivals' environment."""

from bench.support.environment import Environment, Unavailable

__all__ = ["ENVIRONMENT", "Unavailable"]

ENVIRONMENT = Environment("rivals", ("procrastinate==3.10.0", "pgqueuer==1.6.0", "asyncpg", "aiohttp", "uvloop"))
