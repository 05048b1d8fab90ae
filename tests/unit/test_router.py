"""A path finds its template, whatever other templates there are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranvier.http.router import Router

TEMPLATES = [
    "/",
    "/rooms/{room}",
    "/rooms/{room}/state",
    "/rooms/{room}/state/{type}",
    "/rooms/{room}/state/{type}/{key}",
    "/rooms/{room}/state/m.fixed/{key}/end",
    "/rooms/known/other",
    "/event/{id}",
    "/event/{id}/",
]


@pytest.fixture(scope="module")
def router() -> Router[str]:
    router: Router[str] = Router()
    for template in TEMPLATES:
        assert router.at(template, lambda template=template: template) == template
    return router


@pytest.mark.parametrize(
    ("path", "template", "parameters"),
    [
        ("/", "/", []),
        ("/rooms/!a:b", "/rooms/{room}", ["!a:b"]),
        ("/rooms/known/other", "/rooms/known/other", []),
        ("/rooms/known/state", "/rooms/{room}/state", ["known"]),
        ("/rooms/known", "/rooms/{room}", ["known"]),
        ("/rooms/r/state/m.room.name/", "/rooms/{room}/state/{type}/{key}", ["r", "m.room.name", ""]),
        ("/rooms/r/state/m.fixed/k", "/rooms/{room}/state/{type}/{key}", ["r", "m.fixed", "k"]),
        ("/rooms/r/state/m.fixed/k/end", "/rooms/{room}/state/m.fixed/{key}/end", ["r", "k"]),
        ("/rooms/a%2Fb/state", "/rooms/{room}/state", ["a%2Fb"]),
        ("/event/$x", "/event/{id}", ["$x"]),
        ("/event/$x/", "/event/{id}/", ["$x"]),
    ],
)
def test_what_is_found(router: Router[str], path: str, template: str, parameters: list[str]) -> None:
    assert router.find(path) == (template, parameters)


@pytest.mark.parametrize(
    "path", ["", "rooms/r", "//", "/rooms", "/rooms/r/state/a/b/c", "/event/x//", "/nowhere"]
)
def test_what_is_not_there(router: Router[str], path: str) -> None:
    assert router.find(path) is None


def test_names_of_parameters_do_not_tell_templates_apart() -> None:
    router: Router[dict] = Router()
    assert router.at("/a/{x}", dict) is router.at("/a/{y}", dict)


def test_a_parameter_is_a_whole_segment() -> None:
    with pytest.raises(ValueError, match="whole segment"):
        Router().at("/a/{x}.json", dict)


SEGMENTS = st.sampled_from(["a", "b", "{x}"])


@given(
    st.lists(st.lists(SEGMENTS, min_size=1, max_size=5), max_size=12),
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5),
)
def test_it_finds_one_that_fits_whenever_there_is_one(templates: list[list[str]], path: list[str]) -> None:
    router: Router[str] = Router()
    for template in templates:
        text = "/".join(template)
        router.at(text, lambda text=text: text)
    fitting = {
        "/".join(template)
        for template in templates
        if len(template) == len(path)
        and all(wanted in ("{x}", given) for wanted, given in zip(template, path, strict=True))
    }
    found = router.find("/".join(path))
    assert (found is None) == (not fitting)
    if found is not None:
        assert found[0] in fitting
        assert len(found[1]) == found[0].count("{")
