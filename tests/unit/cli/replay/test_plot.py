"""The plot of events and crossings over time."""

from cli.replay.plot import bars, plot
from cli.replay.timeline import MAX_PARTS, Timeline


def test_every_event_and_crossing_is_counted_once_however_long_the_time_is() -> None:
    timeline = Timeline()
    seconds = [1_700_000_000 + number * 7_919 for number in range(5_000)]
    for start in range(0, len(seconds), 100):
        timeline.add_events(seconds[start : start + 100])
        timeline.add_crossing(seconds[start])
    assert len(timeline.events) <= MAX_PARTS
    for columns in (1, 7, 80):
        found = timeline.in_columns(columns)
        assert len(found.events) <= columns
        assert (sum(found.events), sum(found.crossings)) == (5_000, 50)


def test_a_bar_shows_something_for_every_value_above_zero() -> None:
    assert bars([0, 1, 1_000], 2, " .#") == ["  #", " .#"]
    assert bars([], 2, " .#") == ["", ""]


def test_a_plot_is_no_wider_than_the_terminal_and_plain_where_it_must_be() -> None:
    timeline = Timeline()
    timeline.add_events([1_700_000_000, 1_700_000_000, 1_700_000_600])
    timeline.add_crossing(1_700_000_600)
    for ascii_only in (True, False):
        lines = plot(timeline, 60, ascii_only=ascii_only)
        assert max(map(len, lines)) <= 60
        assert all(line.isascii() for line in lines) is ascii_only
        assert any("crossings" in line for line in lines)
    assert plot(Timeline(), 60, ascii_only=True) == []
