"""What background tasks need: pauses between tries, time limits, the clock, and whether a task is being cancelled."""
