"""The domain: conditions, thresholds, periods and gauges to transitions. Pure: no I/O, no clock."""
