"""The tables, as SQLAlchemy Core knows them; the migrations create them."""

import importlib
import pkgutil

from store.tables.base import metadata

# Every module of this package adds its tables to the metadata, whoever imports it first.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["metadata"]
