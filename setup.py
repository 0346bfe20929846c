"""The compiled modules of the package. All else is in pyproject.toml, where extensions are still experimental."""

from setuptools import Extension, setup

# Optional: where one cannot be compiled, the installation goes on without it, and Python does the same work.
NATIVE_DECODER = Extension(
    "server.alerts.native_decoder",
    sources=["server/alerts/native_decoder.pyx"],
    depends=sorted(glob.glob("server/alerts/native_*.pxd")),
    optional=True,
)
NATIVE_ROWS = Extension("store.usage.native_rows", sources=["store/usage/native_rows.pyx"], optional=True)

setup(ext_modules=[NATIVE_DECODER, NATIVE_ROWS])
