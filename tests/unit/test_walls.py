"""The walls between the rooms: which may import which, where SQL may stand, how pure evaluator and webhooks are."""

import ast

import pytest

from tests.support.walls import (
    OUTSIDE,
    ROOMS,
    ROOT,
    Module,
    calls,
    circle,
    dotted,
    folders_imported,
    modules,
    offences,
)

ROOMS |= OUTSIDE


MODULES = list(modules())


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_modules(room: str) -> None:
    assert any(module.room == room for module in MODULES)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.path)
def test_a_module_keeps_the_walls(module: Module) -> None:
    assert offences(module) == []


def test_folders_do_not_import_each_other_in_a_circle() -> None:
    assert circle(folders_imported([module for module in MODULES if module.room != "tests"])) == []


def test_a_circle_of_folders_is_found() -> None:
    modules = [
        Module("server/a/one.py", "from server.b import two"),
        Module("server/b/two.py", "from server.c.three import X"),
        Module("server/c/three.py", "import server.a.one"),
        Module("server/d/four.py", "from server.a import one"),
    ]
    assert circle(folders_imported(modules)) == ["server.a", "server.b", "server.c", "server.a"]
    assert circle(folders_imported([*modules[:2], modules[3]])) == []


@pytest.mark.parametrize(
    ("path", "text", "offence"),
    [
        ("evaluator/bad.py", "import store.alerts", "evaluator must not import store.alerts"),
        ("evaluator/bad.py", "from runtime.clock import Clock", "evaluator must not import runtime.clock"),
        ("evaluator/bad.py", "from ..store import alerts", "imports ..store relatively"),
        ("evaluator/bad.py", "import grpc", "imports grpc: evaluator is pure"),
        ("evaluator/bad.py", "import asyncio", "imports asyncio: evaluator is pure"),
        ("evaluator/bad.py", "def late():\n    import time", "imports time: evaluator is pure"),
        ("evaluator/bad.py", "async def wait(): ...", "awaits: evaluator is pure"),
        ("evaluator/bad.py", "open('x')", "calls open: evaluator is pure"),
        ("evaluator/bad.py", "HALF = 0.5", "has the float 0.5: amounts are Decimal"),
        ("evaluator/bad.py", "float('1')", "makes a float: amounts are Decimal"),
        ("evaluator/bad.py", "from datetime import datetime\ndatetime.now()", "calls datetime.now"),
        ("evaluator/bad.py", "from sqlalchemy import text", "imports sqlalchemy: SQL lives in store"),
        ("runtime/bad.py", "from store.database import Database", "runtime must not import store.database"),
        ("runtime/bad.py", "import time\ntime.time()", "calls time.time"),
        ("store/bad.py", "from server import errors", "store must not import server"),
        ("store/bad.py", "from generated.tidemark.v1 import alert_pb2", "store must not import generated"),
        ("store/bad.py", "import datetime\ndatetime.datetime.now()", "calls datetime.datetime.now"),
        ("server/bad.py", "from notifier import worker", "server must not import notifier"),
        ("server/bad.py", "import psycopg", "imports psycopg: SQL lives in store"),
        ("server/bad.py", "import sqlalchemy.ext.asyncio", "imports sqlalchemy.ext.asyncio: SQL lives in store"),
        ("server/bad.py", "connection.execute('SELECT 1')", "calls .execute(): SQL lives in store"),
        ("server/bad.py", "from time import time", "imports time.time"),
        ("server/bad.py", "import importlib\nimportlib.import_module('notifier.worker')", "must not import"),
        ("notifier/bad.py", "from server.process import serve", "notifier must not import server.process"),
        ("notifier/bad.py", "from generated.tidemark.v1 import alert_pb2", "notifier must not import generated"),
        ("engine/bad.py", "import grpc", "imports grpc: engine knows nothing of gRPC"),
        ("engine/bad.py", "from generated.tidemark.v1 import alert_pb2", "engine must not import generated"),
        ("engine/bad.py", "from server.calls import errors", "engine must not import server.calls"),
        ("engine/bad.py", "from sqlalchemy import text", "imports sqlalchemy: SQL lives in store"),
        ("webhooks/bad.py", "from store.deliveries import queue", "webhooks must not import store.deliveries"),
        ("webhooks/bad.py", "from runtime.clock import Clock", "webhooks must not import runtime.clock"),
        ("webhooks/bad.py", "import aiohttp", "imports aiohttp: webhooks is pure"),
        ("webhooks/bad.py", "import asyncio", "imports asyncio: webhooks is pure"),
        ("webhooks/bad.py", "import os", "imports os: webhooks is pure"),
        ("webhooks/bad.py", "import random\nrandom.random()", "calls random.random: webhooks is pure"),
        ("webhooks/bad.py", "from pathlib import Path", "imports pathlib: webhooks is pure"),
        ("webhooks/bad.py", "import socket", "imports socket: webhooks is pure"),
        ("webhooks/bad.py", "async def post(): ...", "awaits: webhooks is pure"),
        ("webhooks/bad.py", "from sqlalchemy import text", "imports sqlalchemy: SQL lives in store"),
        ("tidemark_client/bad.py", "from runtime.clock import Clock", "must not import runtime.clock"),
        ("tidemark_client/bad.py", "from generated.tidemark.v1 import usage_pb2", "must not import generated"),
        ("tidemark_client/bad.py", "import aiohttp", "tidemark_client depends on grpcio and protobuf only"),
        ("tidemark_client/bad.py", "import time\ntime.time()", "calls time.time"),
        ("server/bad.py", "from tidemark_client import Client", "server must not import tidemark_client"),
        ("cli/bad.py", "from demo import month", "cli must not import demo"),
        ("server/bad.py", "from demo.month import Month", "server must not import demo.month"),
        ("bench/bad.py", "from demo import stack", "bench must not import demo"),
        ("bench/bad.py", "from tests.reference import usage", "bench must not import tests.reference"),
        ("tests/reference/bad.py", "from evaluator.amounts import ZERO", "imports evaluator.amounts: the reference"),
        ("tests/reference/bad.py", "from tests.support import waiting", "imports tests.support: the reference"),
        ("tests/reference/bad.py", "import hypothesis", "imports hypothesis: the reference"),
        ("demo/bad.py", "from tests.acceptance import test_demo", "demo must not import tests.acceptance"),
        ("cli/bad.py", "from tests import acceptance", "cli must not import tests"),
        ("cli/bad.py", "import psycopg", "imports psycopg: SQL lives in store"),
        ("server/bad.py", "from cli.main import main", "server must not import cli.main"),
        ("tests/bad.py", "from bench import ingest", "tests must not import bench"),
        ("tests/unit/test_bad.py", "from bench import ingest", "tests must not import bench"),
        ("tests/unit/test_bad.py", "from tests.unit.test_ids import a", "imports tests.unit.test_ids: a helper"),
        ("tests/acceptance/test_bad.py", "import tests.integration.x.test_y", "imports tests.integration.x.test_y"),
        (
            "tests/integration/x/test_bad.py",
            "from tests.integration.x.conftest import a",
            "imports tests.integration",
        ),
        (
            "tests/integration/x/conftest.py",
            "from tests.integration.y.conftest import a",
            "imports tests.integration",
        ),
        ("tests/integration/x/test_bad.py", "from tests import conftest", "imports tests: a helper"),
        ("tests/support/bad.py", "from tests.acceptance.test_demo import a", "imports tests.acceptance.test_demo"),
        ("server/bad.pyx", "from notifier.worker cimport claim", "server must not import notifier.worker"),
        ("server/bad.pyx", "from notifier.worker cimport (\n    claim,\n)", "server must not import notifier.worker"),
        ("server/bad.pxd", "cimport libc\nimport psycopg", "imports psycopg: SQL lives in store"),
        ("evaluator/bad.pyx", "import grpc\ncdef int one = 1", "imports grpc: evaluator is pure"),
    ],
)
def test_a_module_that_breaks_a_wall_is_found(path: str, text: str, offence: str) -> None:
    module = Module(path, f'"""What lives here."""\n{text}\n')
    assert any(offence in found for found in offences(module)), offences(module)


def test_each_extension_is_optional_and_typed_and_names_all_its_files() -> None:
    files = []
    for call in calls(ast.walk(ast.parse((ROOT / "setup.py").read_text()))):
        if dotted(call.func) == "Extension":
            name = ast.literal_eval(call.args[0])
            options = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
            assert options["optional"] is True
            assert options["sources"] == [name.replace(".", "/") + ".pyx"]
            assert (ROOT / options["sources"][0]).with_suffix(".pyi").exists()
            files += [*options["sources"], *options.get("depends", ())]
    assert sorted(files) == sorted(module.path for module in MODULES if module.is_compiled)


def test_a_missing_docstring_is_found() -> None:
    assert offences(Module("store/bad.py", "import json\n"))
    assert offences(Module("store/bad.pyx", "import json\ncdef int one = 1\n"))
    assert offences(Module("store/bad.py", '"""\nSecond line only."""\n')) == []
    assert offences(Module("store/bad.py", ""))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("server/good.py", "from store import alerts\nfrom generated.tidemark.v1 import alert_pb2"),
        ("store/good.py", "import sqlalchemy\nconnection.execute('SELECT 1')"),
        ("store/good.py", "import time\ntime.monotonic()"),
        ("runtime/clock.py", "from datetime import UTC, datetime\ndatetime.now(UTC)"),
        ("tidemark_client/tasks/clock.py", "from datetime import datetime, timezone\ndatetime.now(timezone.utc)"),
        ("tidemark_client/good.py", "import grpc\nfrom tidemark_client.v1 import usage_pb2"),
        ("tests/reference/good.py", "import zoneinfo\nfrom tests.reference import usage"),
        ("tests/integration/x/test_good.py", "from tests.support import waiting\nfrom tests.reference import usage"),
        ("tests/integration/x/conftest.py", "from tests.support.usage.fixtures import caller\nimport server.health"),
        ("bench/good.py", "from tests.support.processes.programs import Programs"),
        ("tests/unit/bench/test_good.py", "from bench import latency"),
        ("tests/good.py", "import psycopg\nfrom cli.main import main\nimport time\ntime.time()"),
        ("webhooks/good.py", "import random\nimport ipaddress\nrandom.Random(0).uniform(0.0, 0.2)"),
        ("evaluator/good.py", "from evaluator.amounts import ZERO\nfrom decimal import Decimal\nDecimal('0.5')"),
        (
            "server/good.pyx",
            "from libc.stdint cimport int64_t\nfrom evaluator.events import UsageEvent\ncdef int a = 1",
        ),
    ],
)
def test_a_module_that_keeps_the_walls_is_accepted(path: str, text: str) -> None:
    assert offences(Module(path, f'"""What lives here."""\n{text}\n')) == []
