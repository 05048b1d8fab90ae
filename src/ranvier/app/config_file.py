"""The configuration file that `ranvier init` writes and the page that documents every key, both made from the
declarations in `config`.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from ranvier.app.config import Config, ListenerConfig


def example_file(server_name: str) -> str:
    """A commented file: what must be set is set, all else stands there as its default, commented out."""
    lines = [
        "## Ranvier's configuration. What is commented out with one # shows its default.",
        "## Each value can also be given in the environment, as RANVIER__SECTION__KEY.",
        "",
        *_comment(_field(Config, "server_name").description),
        f"server_name = {_toml(server_name)}",
        "",
    ]
    for key in ("data_dir", "public_base_url"):
        lines += _commented_out(Config, key)
    for section in _sections():
        lines += [*_comment(section.shape.__doc__ or ""), *_section_lines(section)]
    return "\n".join(lines).rstrip() + "\n"


def reference_page() -> str:
    """docs/configuration.md."""
    lines = [
        "# Configuration",
        "",
        "<!-- Written by scripts/configuration from src/ranvier/app/config.py; a test keeps it true. -->",
        "",
        "A TOML file, given with `--config`, in `$RANVIER_CONFIG`, or found as `./ranvier.toml`. Every value",
        "can be given as `RANVIER__SECTION__KEY` in the environment, which wins over the file; flags win",
        "over both. A key that does not stand here is an error.",
        "",
        "| key | default | what it does |",
        "| --- | --- | --- |",
        *_rows(Config, ""),
    ]
    return "\n".join(lines) + "\n"


class _Section(msgspec.Struct, frozen=True):
    header: str  # "[database]", or "[[listeners]]"
    shape: Any  # the class that declares its keys


class _Documented(msgspec.Struct, frozen=True):
    default: Any
    description: str


def _sections() -> Iterator[_Section]:
    yield _Section("[database]", _struct_of(Config, "database"))
    yield _Section("[[listeners]]", ListenerConfig)
    for field in inspect.type_info(Config).fields:  # type: ignore[attr-defined]  # it is a StructType
        if field.name != "database" and isinstance(field.type, inspect.StructType):
            yield _Section(f"[{field.name}]", field.type.cls)


def _section_lines(section: _Section) -> list[str]:
    lines = [f"# {section.header}"]
    for field in inspect.type_info(section.shape).fields:  # type: ignore[attr-defined]  # it is a StructType
        if _item_of(field.type) is None:
            lines += _commented_out(section.shape, field.name)
    return [*lines, ""] if lines[-1] else lines


def _commented_out(shape: Any, key: str) -> list[str]:
    field = _field(shape, key)
    value = _toml(field.default) if field.default is not None else '"…"'
    return [*_comment(field.description), f"# {key} = {value}", ""]


def _comment(text: str) -> list[str]:
    return [f"## {line.strip()}" for line in text.strip().splitlines()]


def _field(shape: Any, key: str) -> _Documented:
    for field in inspect.type_info(shape).fields:  # type: ignore[attr-defined]  # it is a StructType
        if field.name == key:
            return _Documented(_default(field), _description(field.type))
    raise KeyError(key)


def _default(field: inspect.Field) -> Any:
    if field.default is not msgspec.NODEFAULT:
        return None if field.default is None else msgspec.to_builtins(field.default, enc_hook=str)
    return field.default_factory() if field.default_factory is not msgspec.NODEFAULT else None


def _description(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.Metadata) and kind.extra_json_schema:
        return str(kind.extra_json_schema.get("description", ""))
    return kind.cls.__doc__ or "" if isinstance(kind, inspect.StructType) else ""


def _struct_of(shape: Any, key: str) -> Any:
    for field in inspect.type_info(shape).fields:  # type: ignore[attr-defined]  # it is a StructType
        if field.name == key and isinstance(field.type, inspect.StructType):
            return field.type.cls
    raise KeyError(key)


def _item_of(kind: inspect.Type) -> Any:
    """The class of which a setting may have several; None: it is another kind of setting."""
    is_list = isinstance(kind, inspect.VarTupleType) and isinstance(kind.item_type, inspect.StructType)
    return kind.item_type.cls if is_list else None  # type: ignore[attr-defined]  # checked in the line above


def _rows(shape: Any, prefix: str) -> Iterator[str]:
    for field in inspect.type_info(shape).fields:  # type: ignore[attr-defined]  # it is a StructType
        if isinstance(field.type, inspect.StructType):
            yield from _rows(field.type.cls, f"{prefix}{field.name}.")
        elif (item := _item_of(field.type)) is not None:
            yield from _rows(item, f"{prefix}{field.name}[].")
        else:
            documented = _field(shape, field.name)
            default = "" if documented.default is None else f"`{_toml(documented.default)}`"
            yield f"| `{prefix}{field.name}` | {default} | {documented.description} |"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        inner = ", ".join(f"{key} = {_toml(item)}" for key, item in value.items() if item is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml(item) for item in value)}]"
    return str(value) if isinstance(value, int) else msgspec.json.encode(value).decode()
