"""What is wrong with a value of the configuration, in words for whoever wrote it."""

import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from ranvier.app.config import Config

_INDEX: Final = re.compile(r"\[(\d+)\]")
_STEP: Final = re.compile(r"[^.\[\]]+")
_WRONG_TYPE: Final = re.compile(r"Expected `(\w+)(?: \| null)?`(?:, got `(\w+)`)?")
_BOUND: Final = re.compile(r"Expected `\w+(?: \| null)?` ([<>]=?) (-?[\d.]+)")
_BOUNDS: Final = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
_KINDS: Final[dict[str, str]] = {
    "bool": "must be true or false",
    "int": "must be a whole number without a unit, such as 50",
    "float": "must be a number",
    "str": "must be text, in quotation marks",
}


def say_mismatch(error: msgspec.ValidationError) -> str:
    """One line: the key as people write it, and what it must be."""
    text, _, place = str(error).partition(" - at `$.")
    place = place.rstrip("`")
    if not place:
        return text
    # Lists are counted from one here, as in all other lines.
    key = _INDEX.sub(lambda found: f"[{int(found[1]) + 1}]", place)
    for pattern, say in _WORDS:
        found = pattern.fullmatch(text)
        if found is not None and (words := say(found, place)) is not None:
            return f"{key}: {words}"
    return f"{key}: {text[0].lower()}{text[1:]}"


def _say_bound(found: re.Match[str], _place: str) -> str:
    return f"must be {_BOUNDS[found[1]]} {found[2]}"


def _say_type(found: re.Match[str], place: str) -> str | None:
    wanted, got = found[1], found[2]
    if wanted == "array":
        is_table = got == "object"
        return (
            f"there may be several: write [[{place}]]" if is_table else 'must be a list, in brackets: ["…"]'
        )
    if wanted == "object":
        return f"is a section: write [{_INDEX.sub('', place)}] on a line of its own, and its settings below"
    return _KINDS.get(wanted)


def _say_choice(_found: re.Match[str], place: str) -> str | None:
    choices = _choices_at(_STEP.findall(_INDEX.sub("", place)))
    return f"must be one of {', '.join(choices)}" if choices else None


_WORDS: Final[Sequence[tuple[re.Pattern[str], Callable[[re.Match[str], str], str | None]]]] = (
    (_BOUND, _say_bound),
    (_WRONG_TYPE, _say_type),
    (re.compile(r"Invalid enum value .*", re.DOTALL), _say_choice),
)


def _choices_at(path: Sequence[str]) -> list[str]:
    """The values that a setting, or an item of it, may have."""
    shape: msgspec.inspect.Type | None = msgspec.inspect.type_info(Config)
    for key in path:
        fields = shape.fields if isinstance(shape, msgspec.inspect.StructType) else ()
        shape = next((_bare(field.type) for field in fields if field.encode_name == key), None)
    match shape:
        case msgspec.inspect.LiteralType():
            return [str(value) for value in shape.values]
        case msgspec.inspect.EnumType():
            return [str(member.value) for member in shape.cls]
        case _:
            return []


def _bare(shape: msgspec.inspect.Type) -> msgspec.inspect.Type:
    """What is declared, without its description, and what a list has of it."""
    while True:
        match shape:
            case msgspec.inspect.Metadata():
                shape = shape.type
            case msgspec.inspect.VarTupleType():
                shape = shape.item_type
            case msgspec.inspect.UnionType():
                shape = next(one for one in shape.types if not isinstance(one, msgspec.inspect.NoneType))
            case _:
                return shape
