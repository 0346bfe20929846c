"""The compiled modules of the package. All else is in pyproject.toml, where extensions are still experimental."""

import sys
from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))  # a build by PEP 517 does not have it

from runtime.compiled import digest  # noqa: E402

# Optional: where one cannot be compiled, the installation goes on without it, and Python does the same work.
NATIVE_DECODER = Extension(
    "server.alerts.native_decoder",
    sources=["server/alerts/native_decoder.pyx"],
    depends=[
        "server/alerts/native_encoding.pxd",
        "server/alerts/native_known_texts.pxd",
        "server/alerts/native_strings.pxd",
        "server/alerts/native_texts.pxd",
    ],
    optional=True,
)
NATIVE_ROWS = Extension("store.usage.native_rows", sources=["store/usage/native_rows.pyx"], optional=True)
EXTENSIONS = [NATIVE_DECODER, NATIVE_ROWS]

for extension in EXTENSIONS:
    [source] = extension.sources
    extension.define_macros.append(("SOURCES_DIGEST", f'"{digest(ROOT / Path(source).parent)}"'))

setup(ext_modules=EXTENSIONS)
