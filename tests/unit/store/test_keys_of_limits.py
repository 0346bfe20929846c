"""The natural keys of limits: two limits have the same one exactly if they have the same subject."""

from hypothesis import given
from hypothesis import strategies as st

from evaluator.limit_windows import BILLING_PERIOD, MOST_ROLLING_MINUTES, LimitWindow, WindowKind
from store.limits.changes import natural_key
from store.limits.limits import LimitSubject
from store.limits.windows import columns_of, window_of

names = st.sampled_from(["a", "b", "1", "DAY", '"', "ROLLING", "[]", "null"])
windows = st.one_of(
    st.sampled_from([LimitWindow(kind) for kind in WindowKind if kind is not WindowKind.ROLLING]),
    st.builds(LimitWindow, st.just(WindowKind.ROLLING), st.sampled_from([1, 2, 60, MOST_ROLLING_MINUTES])),
)


@st.composite
def subjects(draw: st.DrawFn) -> LimitSubject:
    holder, access = draw(names), draw(names)
    keys = draw(st.lists(names, max_size=3, unique=True))
    groups = tuple((key, draw(st.one_of(st.none(), names))) for key in sorted(keys))
    customer, plan = (holder, None) if draw(st.booleans()) else (None, holder)
    currency, metric = (access, None) if draw(st.booleans()) else (None, access)
    return LimitSubject(customer, plan, currency, metric, groups, draw(windows))


@given(subjects(), subjects())
def test_limits_have_the_same_key_exactly_if_their_subjects_are_equal(one: LimitSubject, other: LimitSubject) -> None:
    assert (natural_key(one) == natural_key(other)) == (one == other)
    assert natural_key(one) == natural_key(LimitSubject(**vars(one)))


def test_the_key_of_a_limit_of_the_billing_period_is_the_one_that_earlier_versions_stored() -> None:
    subject = LimitSubject("acme", None, None, "tokens", (("seat", None), ("user", "ann")))
    assert natural_key(subject) == "6e0566d363365438f12d08ebf8f0efaa"
    assert (
        natural_key(LimitSubject(None, "pro", "USD", None, (), BILLING_PERIOD)) == "64b3c87d9f23a37fd58dbaa9de518cc7"
    )


@given(windows)
def test_a_window_comes_back_from_its_columns(window: LimitWindow) -> None:
    columns = columns_of(window)
    assert window_of(columns["window_kind"], columns["window_minutes"]) == window


def test_the_columns_of_the_billing_period_are_unset() -> None:
    assert columns_of(BILLING_PERIOD) == {"window_kind": None, "window_minutes": None}
