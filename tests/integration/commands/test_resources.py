"""The commands of resources: list, get, create, update, put, delete and others, as people and programs use them."""

import pytest

from tests.support.cli.commands import Shell
from tests.support.server.sharing import shares_server

pytestmark = shares_server


async def test_an_alert_is_created_in_one_line_listed_changed_and_archived(shell: Shell) -> None:
    created = await shell.run(
        *("alerts", "create", "spend", "--customer", "acme", "--threshold", "100", "--threshold", "200:critical"),
        *("--threshold", "+50", "--label", "team=growth", "--label", "tier=1", "--json"),
    )
    alert = created.json["alert"]
    assert alert["scope"] == {"customer": {"customerId": "acme"}}
    assert [one.get("value") or one["recurringStep"] for one in alert["thresholds"]] == ["100", "200", "50"]
    assert created.json["warnings"][0]["unknownId"] == "acme"
    alert_id = alert["alertId"]
    listed = await shell.run("alerts", "list", "--label", "team=growth", "--state", "active")
    assert listed.stdout.split()[:4] == ["ID", "NAME", "CONDITION", "OF"]
    assert alert_id in listed.stdout
    assert "100, 200 critical, +50" in listed.stdout
    assert "there are no such alerts" in (await shell.run("alerts", "list", "--label", "team=sales")).stderr

    changed = await shell.run(
        "alerts", "update", alert_id, "--display-name", "Spend", "--label", "team=sales", "--label", "tier-", "--json"
    )
    assert changed.json["alert"]["labels"] == {"team": "sales"}
    assert changed.json["alert"]["displayName"] == "Spend"
    assert len(changed.json["alert"]["thresholds"]) == 3
    moved = await shell.run("alerts", "update", alert_id, "--threshold", "300:critical", "--json")
    assert [one["value"] for one in moved.json["alert"]["thresholds"]] == ["300"]
    cleared = await shell.run("alerts", "update", alert_id, "--clear", "labels", "--json")
    assert "labels" not in cleared.json["alert"]
    assert (await shell.run("alerts", "update", alert_id, code=2)).stderr.endswith(
        "nothing to change: give at least one of the options of fields, or --file\n"
    )

    dry = await shell.run("alerts", "archive", alert_id, "--dry-run")
    assert "nothing is changed" in dry.stderr
    refused = await shell.run("alerts", "archive", alert_id, code=2)
    assert "for good" in refused.stderr
    assert "add --yes" in refused.stderr
    assert (await shell.run("alerts", "get", alert_id, "--json")).json["state"] == "ALERT_STATE_ACTIVE"
    assert f"archived alert {alert_id}" in (await shell.run("alerts", "archive", alert_id, "--yes")).stderr
    shown = await shell.run("alerts", "get", alert_id)
    assert "state                    archived" in shown.stdout
    history = await shell.run("alerts", "changes", alert_id, "--json")
    assert history.lines[0]["kind"] == "ALERT_CHANGE_KIND_ARCHIVED"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("spend", "--threshold", "100", "--group-value", "region=eu"), "group_values"),
        (("spend-threshold-reached", "--threshold", "100"), "spend_threshold_reached"),
        (("spend_threshold_reached", "--threshold", "100"), "spend_threshold_reached"),
        (("commit-percentage", "--threshold", "20%", "--currency", "USD"), "low_remaining_commit_percentage_reached"),
        (("usage", "--metric", "calls", "--threshold", "80%"), "percent_of_limit"),
        (("days-in-plan", "--threshold", "value=7,code=week", "--plan", "pro"), "code"),
        (("credit-balance-depleted", "--customer", "acme"), "credit_balance_depleted"),
    ],
)
async def test_conditions_have_short_names_and_options_of_their_fields(
    shell: Shell, arguments: tuple[str, ...], words: str
) -> None:
    created = await shell.run("alerts", "create", *arguments, "--dry-run", "--yaml")
    assert words in created.stdout
    assert "there are no alerts" in (await shell.run("alerts", "list")).stderr


async def test_what_is_wrong_in_options_is_named_before_a_call(shell: Shell) -> None:
    wrong = {
        ("alerts", "create", "spend", "--threshold", "many"): "is no level",
        ("alerts", "create", "spend", "--threshold", "10:loud"): "is no value of severity; write one of info",
        ("alerts", "create", "spend", "--subscription", "s"): "--subscription goes with --customer",
        ("alerts", "create"): "name a condition",
        ("alerts", "create", "spent"): "Did you mean spend",
        ("alerts", "list", "--state", "activ"): "did you mean active?",
        ("alerts", "list", "--start-time", "yesterday"): "is not a time",
        ("limits", "put", "l", "--customer", "a", "--plan", "b"): "exclude each other",
        ("balances", "put", "a", "b", "--segment", "amout=1"): "did you mean amount?",
        ("customers", "put"): "CUSTOMER is missing",
        ("customers", "update", "a", "--clear", "nme"): "is no field",
        ("customers", "list", "--json", "--yaml"): "exclude each other",
        ("audit", "get", "one"): "no whole number",
    }
    for arguments, words in wrong.items():
        assert words in (await shell.run(*arguments, code=2)).stderr, arguments


async def test_a_customer_is_created_once_updated_in_part_and_put_as_a_whole(shell: Shell) -> None:
    await shell.run("customers", "create", "acme", "--display-name", "Acme", "--plan", "pro", "--custom-field", "a=1")
    again = await shell.run("customers", "create", "acme", code=6)
    assert "tidemark customers update acme" in again.stderr
    updated = await shell.run("customers", "update", "acme", "--custom-field", "b=2", "--currency", "EUR", "--json")
    assert updated.json["customer"]["customFields"] == {"a": "1", "b": "2"}
    assert updated.json["customer"]["planId"] == "pro"
    cleared = await shell.run("customers", "update", "acme", "--clear", "plan_id", "--custom-field", "a-", "--json")
    assert "planId" not in cleared.json["customer"]
    assert cleared.json["customer"]["customFields"] == {"b": "2"}
    put = await shell.run("customers", "put", "acme", "--display-name", "Acme Inc", "--json")
    assert "customFields" not in put.json["customer"]
    missing = await shell.run("customers", "update", "nobody", "--currency", "EUR", code=3)
    assert "tidemark customers list" in missing.stderr


async def test_what_was_printed_as_yaml_is_read_again_from_a_file(shell: Shell) -> None:
    await shell.run(
        *("balances", "create", "acme", "b1", "--kind", "commit", "--currency", "USD", "--priority", "3"),
        *("--segment", "amount=0.10,start_time=2026-01-01,end_time=2027-01-01"),
    )
    printed = (await shell.run("balances", "get", "acme", "b1", "--yaml")).stdout
    assert "amount: '0.1'" in printed
    again = await shell.run("balances", "put", "--file", "-", text=printed.replace("priority: 3", "priority: 4"))
    assert "put balance acme b1" in again.stderr
    assert (await shell.run("balances", "get", "acme", "b1", "--json")).json["priority"] == 4
    exists = await shell.run("balances", "create", "--file", "-", text=printed, code=6)
    assert "already" in exists.stderr
    broken = await shell.run("balances", "put", "-f", "-", text="balance_id: b\nkindd: x\n", code=2)
    assert "standard input: line 2: kindd: Balance has no such field; did you mean kind?" in broken.stderr
    voided = await shell.run("balances", "void", "acme", "b1", "--yes")
    assert "voided balance acme b1" in voided.stderr


async def test_a_list_is_read_page_by_page_to_a_limit_or_to_its_end(shell: Shell) -> None:
    batch = "\n".join(
        ["requests:"]
        + [
            f"- alert: {{display_name: a{number}, scope: {{all_customers: {{}}}},"
            f" usage_threshold_reached: {{metric_id: m{number}}}, thresholds: [{{value: 1}}]}}"
            for number in range(7)
        ]
    )
    await shell.run("alerts", "create-batch", "--file", "-", text=batch)
    some = await shell.run("alerts", "list", "--limit", "3", "--json")
    assert len(some.lines) == 3
    [token] = [line.split()[-1] for line in some.stderr.splitlines() if "--page-token" in line]
    rest = await shell.run("alerts", "list", "--page-token", token, "--json")
    assert sorted(one["displayName"] for one in some.lines + rest.lines) == [f"a{number}" for number in range(7)]
    assert rest.stderr == ""
    assert (await shell.run("alerts", "list", "--count")).stdout == "7\n"
    newest = await shell.run("alerts", "list", "--order", "newest-first", "--json")
    ids = [one["alertId"] for one in some.lines + rest.lines]
    assert [one["alertId"] for one in newest.lines] == ids[::-1]


async def test_errors_say_what_to_do_and_end_with_the_code_of_their_kind(shell: Shell) -> None:
    unknown = await shell.run("alerts", "get", "alt_x", code=3)
    assert "see what there is: tidemark alerts list" in unknown.stderr
    wrong = await shell.run("alerts", "list", "--key", "tmk_wrong", code=4)
    assert "the key may be revoked" in wrong.stderr
    without = await shell.run("alerts", "list", code=4, env={"TIDEMARK_KEY": ""})
    assert "tidemark context set NAME --key KEY" in without.stderr
    down = await shell.run("alerts", "list", "--server", "127.0.0.1:1", code=5)
    assert "start one with `tidemark up`" in down.stderr
    invalid = await shell.run(
        *("alerts", "create", "spend", "--threshold", "1", "--threshold", "1", "--name", "x" * 300), code=2
    )
    assert "alert.display_name" in invalid.stderr
    assert "Traceback" not in invalid.stderr


async def test_usage_that_is_sent_by_hand_reaches_a_threshold_and_is_watched(shell: Shell) -> None:
    await shell.run("alerts", "create", "usage", "--metric", "calls", "--threshold", "10", "--uniqueness-key", "k")
    now = shell.caller.clock.now().isoformat()
    event = f"event_id=e1,customer_id=acme,metric_id=calls,quantity=12,event_time={now}"
    sent = await shell.run("usage", "send", "--event", event)
    assert sent.stdout.splitlines()[1].split() == ["1", "0", "0", "10"]
    watched = await shell.run(
        "notifications", "watch", "--start-time", "2026-01-01", "--limit", "1", "--customer", "acme"
    )
    assert "12 reached 10" in watched.stdout
    assert "--resume-token" in watched.stderr
    [state] = (await shell.run("customer-alerts", "list", "--json")).lines
    assert state["gauges"][0]["thresholds"][0]["inAlarm"]
    [entry] = (await shell.run("audit", "list", "--limit", "1", "--json")).lines
    assert entry["method"].endswith("CreateAlert")
    voided = await shell.run("usage", "void", "--event", f"event_id=e1,customer_id=acme,event_time={now}", "--yes")
    assert "voided" in voided.stdout


async def test_an_endpoint_shows_its_secret_once_and_loses_no_label(shell: Shell) -> None:
    created = await shell.run("endpoints", "create", "https://example.com/hook", "--label", "team=ops")
    assert "\nsecret whsec_" in created.stdout
    endpoint_id = created.stdout.splitlines()[1].split()[0]
    updated = await shell.run(
        "endpoints", "update", endpoint_id, "--label", "tier=1", "--event-type", "alert.reached"
    )
    assert "alert.reached" in (await shell.run("endpoints", "list", "--wide")).stdout
    assert "secret" not in updated.stdout
    shown = (await shell.run("endpoints", "get", endpoint_id, "--json")).json
    assert shown["labels"] == {"team": "ops", "tier": "1"}
    rotated = await shell.run("endpoints", "rotate-secret", endpoint_id, "--grace", "1h", "--yes", "--json")
    assert rotated.json["secret"].startswith("whsec_")
    assert "deleted endpoint" in (await shell.run("endpoints", "delete", endpoint_id, "--yes")).stderr


async def test_the_versions_of_both_sides_are_shown(shell: Shell) -> None:
    shown = (await shell.run("version", "--json")).json
    assert shown["client"] == shown["server"] != ""
