"""Web pages that are made to be read for ever."""

import time

import pytest

from ranvier.io.open_graph import read_properties

LONG_TO_READ = {
    # Each heading holds all that the ones in it hold.
    "headings in headings": ("<h1>" * 200 + "<i> </i>" * 400 + "</h1>" * 200) * 220,
    "titles in titles": ("<svg><title>" * 100 + "<i> </i>" * 400 + "</title></svg>" * 100) * 160,
    "paragraphs far down": "<div>" * 240 + "<p> </p>" * 120_000,
    "many bases": "<base href=/a/>" * 65_000,
}


@pytest.mark.parametrize("page", LONG_TO_READ.values(), ids=LONG_TO_READ.keys())
def test_no_page_takes_long(page: str) -> None:
    """The first one took 17 seconds of the processes that make everybody's thumbnails."""
    started = time.process_time()
    read_properties(page[:1_048_576], "https://page.example/")
    assert time.process_time() - started < 5


def test_the_first_title_and_heading_that_say_anything_count() -> None:
    page = "<title> </title><title>One</title><title>Two</title><h1> </h1><h2>Three</h2>"
    assert read_properties(page, "https://page.example/") == {"og:title": "One"}
    assert read_properties("<h1> </h1><h2>Three</h2>", "https://page.example/") == {"og:title": "Three"}
