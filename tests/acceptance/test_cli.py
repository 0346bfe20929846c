"""The commands as real processes, on an embedded database, with signals."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

import grpc
import pytest

from generated.tidemark.v1.account_service_pb2 import GetCustomerRequest, GetCustomerResponse
from tests.support.processes.up import TIDEMARK, TIMEOUT, Up, alive, environment, eventually, run

ALERT = (
    '{"alert": {"display_name": "Spend", "scope": {"all_customers": {}},'
    ' "spend_threshold_reached": {"currency": "USD"},'
    ' "thresholds": [{"value": "10"}, {"value": "100", "code": "over"}]}}'
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `up`, whose database is made by the first test that starts it."""
    return tmp_path_factory.mktemp("up")


@pytest.fixture
def up(folder: Path) -> Iterator[Up]:
    """`tidemark up` on a database without keys, for tests that end it or, in the last of them, create keys."""
    running = Up(folder)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def shared_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """`tidemark up` for the tests that leave it as they found it."""
    running = Up(tmp_path_factory.mktemp("shared_up"))
    yield running
    running.stop()


def create_alert(up: Up) -> None:
    """Creates an alert with a foreign client."""
    up.call("AlertService/CreateAlert", ALERT)


def code_of(address: str, customer_id: str, key: str = "") -> grpc.StatusCode:
    """The code of the answer when a caller with that API key asks for a customer."""
    with grpc.insecure_channel(address) as channel:
        get = channel.unary_unary(
            "/tidemark.v1.AccountService/GetCustomer",
            request_serializer=GetCustomerRequest.SerializeToString,
            response_deserializer=GetCustomerResponse.FromString,
        )
        metadata = (("authorization", f"Bearer {key}"),) if key else ()
        try:
            get(GetCustomerRequest(customer_id=customer_id), metadata=metadata, timeout=TIMEOUT)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK


def write_usage(file: IO[str]) -> None:
    """Ten days of usage: 12 good rows and 3 bad ones."""
    now = datetime.now(UTC).replace(microsecond=0)
    file.write("account,model,tokens,usd,at\n")
    for number in range(12):
        at = now - timedelta(hours=number)
        file.write(f"customer-{number % 2},large,{1000 + number},10.25,{at.isoformat()}\n")
    file.write(f"customer-0,large,1e999,1,{now.isoformat()}\n")
    file.write(f",large,1,1,{now.isoformat()}\n")
    file.write(f"customer-0,large,1,1,{(now + timedelta(days=1)).isoformat()}\n")


MAPPING = ("--customer", "account", "--metric", "=tokens", "--quantity", "tokens", "--cost", "usd", "--time", "at")


def test_replay_and_watch_work_against_a_running_up(shared_up: Up) -> None:
    up = shared_up
    create_alert(up)
    path = up.folder / "usage.csv"
    with path.open("w") as file:
        write_usage(file)

    first = up.run("replay", str(path), *MAPPING, "--property", "model=model", "--batch-size", "4")
    assert first.returncode == 3, first.stderr  # some rows were rejected
    assert re.search(r"12 +accepted", first.stdout)
    assert re.search(r"EVENT_INVALID \(quantity\) +1 +14", first.stdout)
    assert re.search(r"EVENT_IN_FUTURE +1 +16", first.stdout)
    assert re.search(r"unreadable row +1 +15 +customer_id is empty", first.stdout)
    assert re.search(r"Spend alt_\w+ +reached +2 +2", first.stdout)

    again = up.run("replay", str(path), *MAPPING, "--property", "model=model")
    assert again.returncode == 3
    assert re.search(r"\b0 +accepted", again.stdout)
    assert re.search(r"12 +duplicates", again.stdout)
    assert "thresholds by alert" not in again.stdout

    watched = up.run("watch", "--once")
    assert watched.returncode == 0, watched.stderr
    for customer in ("customer-0", "customer-1"):
        assert re.search(rf"in alarm +{customer} +Spend +alt_\w+ +USD +61.5 +100 ", watched.stdout)
    assert "customer-1" not in up.run("watch", "--once", "--customer", "customer-0").stdout


def test_up_starts_a_killed_process_again_on_the_same_address(shared_up: Up) -> None:
    up = shared_up
    before = up.children()
    assert set(before) == {"serve", "notify"}
    for command, name in (("serve", "server"), ("notify", "notifier")):
        os.kill(before[command], signal.SIGKILL)
        up.wait_for(f"the {name} was ended by SIGKILL; starting it again in 1 s")
        up.wait_for(f"the {name} runs again")
    after = up.children()
    assert set(after) == {"serve", "notify"}
    assert not set(after.values()) & set(before.values())
    assert up.run("watch", "--once").returncode == 0


def test_signal_drains_both_processes_of_up_which_ends_with_0(up: Up) -> None:
    children = up.children()
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(TIMEOUT) == 0
    assert "draining" in up.said()
    assert not any(alive(pid) for pid in children.values())


def test_child_processes_stop_when_up_is_killed(up: Up) -> None:
    processes = [*up.children().values(), up.postmaster()]
    up.process.kill()
    up.process.wait(TIMEOUT)
    eventually(lambda: not any(alive(pid) for pid in processes))


def test_port_in_use_is_reported_with_a_hint(shared_up: Up) -> None:
    up = shared_up
    for command in ("serve", "up"):
        second = run(up.folder, command, TIDEMARK_LISTEN=up.address)
        assert second.returncode == 1
        assert f"cannot listen on {up.address}" in second.stderr
        assert "TIDEMARK_LISTEN" in second.stderr
        assert "Traceback" not in second.stderr


def test_keys_are_created_listed_revoked_and_take_over_the_default_organization(up: Up) -> None:
    create_alert(up)
    usage = up.folder / "usage.ndjson"
    now = datetime.now(UTC).isoformat()
    usage.write_text(
        '{"customer_id": "hooli", "metric_id": "calls", "quantity": 1, "cost": "20", "currency": "USD",'
        f' "event_time": "{now}"}}\n'
    )
    replayed = up.run("replay", str(usage))
    assert replayed.returncode == 0, replayed.stderr
    made = up.run("keys", "create", "--organization", "acme", "--take-over")
    assert made.returncode == 0, made.stderr
    assert "default is called acme now" in made.stderr
    key = made.stdout.strip()
    assert re.fullmatch(r"tmk_[\w-]{43}", key)
    (key_id,) = set(re.findall(r"key_\w+", made.stderr))

    # Servers that run without keys recognize the first key within seconds.
    eventually(lambda: code_of(up.address, "hooli") is grpc.StatusCode.UNAUTHENTICATED)
    refused = up.run("watch", "--once")
    assert refused.returncode == 4
    assert "does not accept the credentials" in refused.stderr
    seen = up.run("watch", "--once", TIDEMARK_KEY=key)
    assert seen.returncode == 0
    assert "hooli" in seen.stdout
    again = up.run("keys", "create", "--organization", "acme", "--take-over")
    assert again.returncode == 0
    assert "nothing to take over" in again.stderr

    listed = up.run("keys", "list")
    assert key_id in listed.stdout
    assert key not in listed.stdout
    assert up.run("keys", "revoke", "--yes", key_id, "--organization", "other").returncode == 1
    assert up.run("keys", "revoke", "--yes", key_id, "--organization", "acme").returncode == 0
    eventually(lambda: code_of(up.address, "hooli", key) is grpc.StatusCode.UNAUTHENTICATED)
    assert up.run("watch", "--once", TIDEMARK_KEY=key).returncode == 4


def test_replay_counts_every_row_when_the_server_is_killed(shared_up: Up) -> None:
    up = shared_up
    now = datetime.now(UTC)
    rows = 30_000
    path = up.folder / "usage.ndjson"
    with path.open("w") as file:
        for number in range(rows):
            at = (now - timedelta(seconds=number)).isoformat()
            file.write(
                f'{{"customer_id": "c{number % 50}", "metric_id": "calls", "quantity": 1, "event_time": "{at}"}}\n'
            )
    replay = subprocess.Popen(
        [*TIDEMARK, "replay", str(path), "--batch-size", "100"],
        env=environment(up.folder, TIDEMARK_SERVER=up.address),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    eventually(lambda: code_of(up.address, "c0") is grpc.StatusCode.OK)
    os.kill(up.children()["serve"], signal.SIGKILL)
    results, progress = replay.communicate(timeout=2 * TIMEOUT)
    assert replay.returncode == 0, progress
    assert "interrupted" in progress
    accepted, duplicates = (
        int(re.findall(rf"([\d,]+) +{words}", results)[0].replace(",", "")) for words in ("accepted", "duplicates")
    )
    assert accepted + duplicates == rows
    again = up.run("replay", str(path), "--batch-size", "2000")
    assert re.search(r"\b0 +accepted", again.stdout)
    assert re.search(rf"{rows:,} +duplicates", again.stdout)


def test_replay_without_a_server_gives_up_with_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "usage.csv"
    path.write_text("customer_id,metric_id,quantity,time\nacme,calls,1,2026-03-01\n")
    finished = run(tmp_path, "replay", str(path), "--patience", "0.5", TIDEMARK_SERVER="127.0.0.1:1")
    assert finished.returncode == 1
    assert "no answer from 127.0.0.1:1" in finished.stderr
    assert "run the same command again" in finished.stderr
