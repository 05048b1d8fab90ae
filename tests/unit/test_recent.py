"""What is kept in memory never weighs more than it may, whatever comes in which order."""

from collections import OrderedDict

from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.services.recent import Recent

MAX = 10

acts = st.lists(
    st.tuples(st.sampled_from(["keep", "get", "forget"]), st.integers(0, 5), st.integers(0, MAX + 2)),
    max_size=60,
)


@settings(max_examples=200)
@given(acts)
def test_the_least_recently_used_go_first(done: list[tuple[str, int, int]]) -> None:
    recent: Recent[int, str] = Recent(MAX)
    model: OrderedDict[int, int] = OrderedDict()  # key -> weight
    for number, (act, key, weight) in enumerate(done):
        if act == "get":
            assert (recent.get(key) is not None) == (key in model)
            if key in model:
                model.move_to_end(key)
            continue
        model.pop(key, None)
        if act == "forget":
            recent.forget(key)
            continue
        recent.keep(key, f"{number}", weight)
        if weight <= MAX:
            model[key] = weight
            while sum(model.values()) > MAX:
                model.popitem(last=False)
            assert recent.get(key) == f"{number}"
        assert recent.weight == sum(model.values()) <= MAX
        assert len(recent) == len(model)


def test_one_that_is_too_heavy_does_not_drive_the_others_out() -> None:
    recent: Recent[str, int] = Recent(MAX)
    recent.keep("light", 1, 5)
    recent.keep("heavy", 2, MAX + 1)
    assert recent.get("light") == 1
    assert recent.get("heavy") is None
