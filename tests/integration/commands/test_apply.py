"""`tidemark apply` and `tidemark export`."""

from pathlib import Path

import pytest

from tests.support.cli.commands import Shell
from tests.support.server.sharing import shares_server

pytestmark = shares_server

FILE = """
metrics:
- metric_id: tokens
  aggregation: sum
plans:
- {plan_id: pro, display_name: Pro}
limits:
- limit_id: l1
  customer: {customer_id: acme}
  quantity: {metric_id: tokens}
  amount: 5000
---
alerts:
- uniqueness_key: tokens
  display_name: Tokens
  scope: {all_customers: {}}
  usage_threshold_reached: {metric_id: tokens}
  labels: {team: growth}
  thresholds:
  - value: 0.10
  - value: 5000
    severity: critical
- uniqueness_key: spend
  display_name: Spend
  scope: {plan: {plan_id: pro}}
  spend_threshold_reached: {currency: USD}
  thresholds: [{value: 100}]
endpoints:
- display_name: ops
  url: https://example.com/ops
"""
ONE_ALERT = """
alerts:
- uniqueness_key: {key}
  display_name: {name}
  scope: {{all_customers: {{}}}}
  usage_threshold_reached: {{metric_id: {key}}}
  thresholds: [{{value: {value}}}]
"""


def one_alert(key: str, value: str = "1", name: str = "Name") -> str:
    return ONE_ALERT.format(key=key, value=value, name=name)


async def test_a_file_is_applied_once_and_then_changes_nothing(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(FILE)
    tried = await shell.run("apply", "-f", str(path), "--dry-run")
    assert "6 to create" in tried.stderr
    assert "+ alert tokens" in tried.stdout
    assert "thresholds: value=0.1," in tried.stdout
    assert "metric_unknown" not in tried.stderr.lower()
    assert "there are no alerts" in (await shell.run("alerts", "list")).stderr
    first = await shell.run("apply", "-f", str(path))
    assert "6 created" in first.stderr
    assert "secret whsec_" in first.stdout
    for _ in range(2):
        again = await shell.run("apply", "-f", str(path))
        assert (again.stdout, "no changes (6 items)" in again.stderr) == ("", True)
    await shell.run("apply", "-f", str(path), "--check")
    path.write_text(
        FILE.replace("5000\n    severity: critical", "6000\n    severity: critical").replace("growth", "ops")
    )
    await shell.run("apply", "-f", str(path), "--check", code=8)
    changed = await shell.run("apply", "-f", str(path))
    assert "1 changed, 5 unchanged" in changed.stderr
    assert "labels.team: growth → ops" in changed.stdout
    assert "thresholds: - value=5000,severity=critical" in changed.stdout
    assert "thresholds: + value=6000,severity=critical" in changed.stdout


@pytest.mark.parametrize("form", ["--json", ""])
async def test_what_was_exported_is_applied_without_a_change_and_anew_elsewhere(shell: Shell, form: str) -> None:
    await shell.run("apply", "-f", "-", text=FILE)
    await shell.run("alerts", "create", "usage", "--metric", "tokens", "--threshold", "7", "--name", "by hand")
    await shell.run(
        "alerts", "create", "spend", "--threshold", "7", "--uniqueness-key", "by-hand", "--state", "disabled"
    )
    exported = (await shell.run("export", *filter(None, [form]))).stdout
    assert "tidemark.apply" not in exported
    again = await shell.run("apply", "-f", "-", text=exported)
    assert (again.stdout, "no changes (8 items)" in again.stderr) == ("", True)
    assert "2 items of another owner" in again.stderr
    assert (await shell.run("export", *filter(None, [form]))).stdout == exported
    of_kind = await shell.run("export", "plans")
    assert "plans:\n- plan_id: pro" in of_kind.stdout
    assert "alerts" not in of_kind.stdout.replace("tidemark", "")


async def test_prune_removes_only_what_this_owner_applied(shell: Shell) -> None:
    mine, theirs = one_alert("a") + one_alert("b").removeprefix("\nalerts:\n"), one_alert("c")
    await shell.run("apply", "-f", "-", "--owner", "mine", text=mine)
    await shell.run("apply", "-f", "-", "--owner", "theirs", text=theirs)
    await shell.run("alerts", "create", "usage", "--metric", "d", "--threshold", "1", "--uniqueness-key", "d")
    kept = await shell.run("apply", "-f", "-", "--owner", "mine", text=one_alert("a"))
    assert "no changes" in kept.stderr
    pruned = ("apply", "-f", "-", "--owner", "mine", "--prune")
    assert "add --yes" in (await shell.run(*pruned, text=one_alert("a"), code=2)).stderr
    removed = await shell.run(*pruned, "--yes", text=one_alert("a"))
    assert "- alert b  (archive)" in removed.stdout
    assert "1 removed, 1 unchanged" in removed.stderr
    # A kind that the files do not mention is left alone.
    assert "no changes" in (await shell.run(*pruned, "--yes", text="plans: []")).stderr
    active = (await shell.run("alerts", "list", "--state", "active", "--json")).lines
    assert sorted(one["uniquenessKey"] for one in active) == ["a", "c", "d"]
    emptied = await shell.run(*pruned, "--yes", text="alerts: []")
    assert "1 removed" in emptied.stderr


async def test_what_another_owner_applied_is_taken_over_only_on_request(shell: Shell) -> None:
    await shell.run("apply", "-f", "-", "--owner", "theirs", text=one_alert("a"))
    refused = await shell.run("apply", "-f", "-", text=one_alert("a", "2"), code=1)
    assert "'theirs' applied it; --adopt takes it over" in refused.stdout
    await shell.run("apply", "-f", "-", "--adopt", text=one_alert("a"))
    [alert] = (await shell.run("alerts", "list", "--json")).lines
    assert alert["labels"] == {"tidemark.apply": "default"}
    assert "1 changed" in (await shell.run("apply", "-f", "-", text=one_alert("a", "2"))).stderr


async def test_an_item_that_is_refused_does_not_stop_the_others(shell: Shell) -> None:
    bad = one_alert("bad").replace("usage_threshold_reached", "usage_exceeded")
    mixed = await shell.run("apply", "-f", "-", text=one_alert("a") + "---" + bad + "---" + one_alert("c"), code=1)
    assert "2 created, 1 failed" in mixed.stderr
    assert "! alert bad" in mixed.stdout
    assert "usage_exceeded does not take the scope all_customers" in mixed.stdout
    moved = one_alert("a").replace("metric_id: a", "metric_id: other")
    unchangeable = await shell.run("apply", "-f", "-", text=moved, code=1)
    assert "1 failed" in unchangeable.stderr


async def test_mistakes_in_files_are_all_named_and_nothing_is_applied(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "declared"
    (folder / "more").mkdir(parents=True)
    (folder / "a.yaml").write_text(one_alert("a") + "  labells: {a: b}\n")
    (folder / "more" / "b.yml").write_text(one_alert("twice") + "---" + one_alert("twice"))
    (folder / "c.json").write_text('{"alarms": [], "alerts": [{"display_name": "x"}], "metrics": {}}')
    (folder / "ignored.txt").write_text("{")
    broken = await shell.run("apply", "-f", str(folder), code=2)
    assert "5 mistakes; nothing is applied" in broken.stderr
    assert "a.yaml:8: labells: Alert has no such field; did you mean labels?" in broken.stderr
    assert "the alert twice stands in" in broken.stderr
    assert "'alarms' is none of metrics" in broken.stderr
    assert "this alert has no uniqueness_key (or alert_id), by which it is found" in broken.stderr
    assert "metrics is a list" in broken.stderr
    assert "there are no alerts" in (await shell.run("alerts", "list")).stderr
    assert "does not exist" in (await shell.run("apply", "-f", str(tmp_path / "none"), code=2)).stderr
    assert "line 2" in (await shell.run("apply", "-f", "-", text="{", code=2)).stderr


async def test_many_warnings_are_counted_and_the_first_are_shown(shell: Shell) -> None:
    alerts = one_alert("one") + "".join(one_alert(f"a{index}").partition("alerts:\n")[2] for index in range(44))
    applied = await shell.run("apply", "-f", "-", text=alerts)
    assert applied.stderr.count("warning alert") == 40
    assert "… and 5 more warnings\n45 created" in applied.stderr


async def test_an_endpoint_of_listen_is_neither_exported_nor_pruned(shell: Shell) -> None:
    label, listening = "tidemark.listen=machine", ("https://example.com/listen", "--json")
    await shell.run("apply", "-f", "-", text="endpoints: [{display_name: ops, url: 'https://example.com/ops'}]")
    await shell.run("endpoints", "create", *listening, "--label", label, "--label", "tidemark.apply=default")
    exported = (await shell.run("export", "endpoints")).stdout
    assert ("ops" in exported, "example.com/listen" in exported) == (True, False)
    pruned = await shell.run("apply", "-f", "-", "--prune", "--yes", text=exported)
    assert "no changes (1 item)" in pruned.stderr
    assert len((await shell.run("endpoints", "list", "--json")).lines) == 2


async def test_a_subscription_on_an_unknown_plan_is_stored_with_a_warning(shell: Shell) -> None:
    put = ("subscriptions", "put", "acme", "main", "--plan", "gold")
    assert "warning there is no plan gold; it could be misspelt" in (await shell.run(*put)).stderr
    await shell.run("plans", "put", "gold")
    assert "warning" not in (await shell.run(*put)).stderr
