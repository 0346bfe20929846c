"""The domain of alerts. Pure: no I/O, no clock.

- Definitions: `alerts`, `definitions`, `alert_commands`, `overrides`, `prices`, `limits`; their JSON in
  `definition_json` and `selection_json`.
- Gauges: `gauges`, `periods`, `aggregation`, `balances`, `balance_values`, `invoices`, `drawdown`, `changed_facts`.
- From an event to the gauges that it moves: `events`, `routing_facts`, `watched_gauges`, `routing`.
- From a gauge to a notification: `thresholds` (at which value a threshold is reached), `transitions` (`evaluate`),
  `notifications`, `notification_json`, `exclusions`.
"""
