"""The version of this package."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("tidemark-client")
except PackageNotFoundError:  # the files were copied, and not installed
    VERSION = "unknown"
