"""Writes docs/endpoints.md: every operation of the specification, and whether this server serves it.

What is served is read off a homeserver that is put together for the purpose, so the table cannot flatter.
"""

import asyncio
import csv
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from ranvier.app.build import assemble, open_ports
from ranvier.app.config import Config, SsoConfig, SsoProviderConfig
from ranvier.http.endpoint import collect

ROOT: Final = Path(__file__).parent.parent
SPECIFICATION: Final = ROOT / "docs/spec/endpoints.csv"
PAGE: Final = ROOT / "docs/endpoints.md"

# What other programs serve, or what a homeserver calls and does not serve.
OTHERS: Final[Mapping[str, str]] = {
    "identity": "an identity server's",
    "push-gateway": "a push gateway's",
}
DECLINED: Final[Mapping[str, str]] = {
    "ping": "an application service's",
    "getWellknownPolicy": "a policy server's",
    "askPolicyServerToSign": "a policy server's",
}
PROVIDER: Final = SsoProviderConfig(id="x", name="X", issuer="https://idp.test", client_id="x")
CALLED: Final = frozenset({"transactions", "query_user", "query_room", "protocols"})


def shape(method: str, path: str) -> tuple[str, str]:
    """An operation without the names of its parameters (and the blank that tells two of one path apart)."""
    return method, re.sub(r"\{[^}]*\}", "{}", path.rstrip())


async def served_operations() -> set[tuple[str, str]]:
    """What a homeserver with everything switched on serves."""
    with tempfile.TemporaryDirectory() as directory:
        ports = await open_ports(
            Config(
                server_name="localhost",
                data_dir=Path(directory),
                public_base_url="http://localhost:8008",
                sso=SsoConfig(providers=(PROVIDER,)),
            )
        )
        homeserver = assemble(ports)
        served = {shape(declared.method, declared.path) for declared, _ in collect(homeserver.endpoints)}
        await homeserver.close()
    return served


def state(row: Mapping[str, str], served: set[tuple[str, str]]) -> str:
    """What the table says of an operation."""
    if shape(row["method"], row["path"]) in served:
        return "yes"
    if row["operation"] in DECLINED:
        return DECLINED[row["operation"]]
    if row["api"] in OTHERS:
        return OTHERS[row["api"]]
    if row["api"] == "application-service" and row["module"] in CALLED:
        return "an application service's"
    return "no"


def build_page(rows: Iterable[Mapping[str, str]], served: set[tuple[str, str]]) -> str:
    """The whole page."""
    rows = list(rows)
    states = [state(row, served) for row in rows]
    counts = Counter((row["api"], known) for row, known in zip(rows, states, strict=True))
    lines = [
        "# Operations",
        "",
        "<!-- Written by scripts/endpoints.py; a test keeps it true. -->",
        "",
        "Every operation of the specification v1.19, and whether this server serves it.",
        "",
    ]
    lines += [
        f"- {api}: {counts[api, 'yes']} of {counts[api, 'yes'] + counts[api, 'no']} served"
        for api in ("client-server", "server-server")
    ]
    lines += ["", "| operation | method and path | served |", "| --- | --- | --- |"]
    for row, known in sorted(
        zip(rows, states, strict=True), key=lambda pair: (pair[0]["api"], pair[0]["path"])
    ):
        lines.append(f"| {row['operation']} | `{row['method']} {row['path']}` | {known} |")
    return "\n".join(lines) + "\n"


async def current_page() -> str:
    """The page as it should stand in docs."""
    with SPECIFICATION.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return build_page(rows, await served_operations())


if __name__ == "__main__":
    PAGE.write_text(asyncio.run(current_page()), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE.relative_to(ROOT)}\n")
