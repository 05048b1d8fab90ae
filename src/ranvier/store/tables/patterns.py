"""Texts that people look for, as patterns of LIKE … ESCAPE '!'."""


def like(text: str) -> str:
    """The pattern that matches `text` alone; around it there may be wildcards.

    NUL is left out: it stands in no text of PostgreSQL, which refuses parameters with it.
    """
    return text.replace("\0", "").replace("!", "!!").replace("%", "!%").replace("_", "!_")
