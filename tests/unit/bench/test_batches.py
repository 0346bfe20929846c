"""The cases of the part `batches`, and the table of their rounds."""

from bench.batches import CASES, EVENTS, Report, Round
from bench.report import markdown


def test_cases_have_each_size_of_a_message_for_one_and_two_workers_and_for_one_stream() -> None:
    assert {case.batch for case in CASES} == set(EVENTS)
    for workers, streams in ((1, 8), (2, 8), (1, 1)):
        found = [case for case in CASES if (case.workers, case.streams) == (workers, streams)]
        assert {case.batch for case in found} == set(EVENTS)


def test_cases_have_different_names_so_that_no_event_is_repeated() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


def test_table_has_the_mean_of_the_rounds_of_each_case() -> None:
    table = markdown(Report({case: [Round(1_000, 10.0), Round(3_000, 20.0)] for case in CASES}).table())
    assert "| dense | 1 | 8 | 2,000, 15.0 µs |" in table
