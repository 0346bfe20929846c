"""rules: what many alerts and frequent changes of rules cost usage. `bench.rules.part` measures all rows."""
