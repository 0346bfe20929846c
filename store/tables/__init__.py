"""The tables, as SQLAlchemy Core describes them. The migrations create them."""

import importlib
import pkgutil

from store.tables.base import metadata

# Imports all modules, so that the metadata contains all tables whatever module is imported first.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["metadata"]
