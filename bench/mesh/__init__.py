"""The part `mesh`: what TLS, API keys and metrics cost, and how a server behaves with many open streams."""
