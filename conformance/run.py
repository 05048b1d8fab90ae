"""Runs Complement, the conformance tests of Matrix, against this checkout, and says what changed since the last run.

    make conformance                                  every package that this server is to pass
    make conformance ARGS="csapi"                     one package
    make conformance ARGS="csapi -run TestLogin"      some of its tests

Complement comes through Go's own tooling at the version that go.mod names, or from the checkout that $COMPLEMENT_DIR
names. Nothing of it is changed on disk: an overlay makes its tests start processes of this checkout, where they
would start containers.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent
WORK: Final = ROOT / ".cache" / "conformance"
RESULTS: Final = HERE / "results.json"
REASONS: Final = HERE / "reasons.json"
PAGE: Final = ROOT / "docs" / "conformance.md"
MODULE: Final = "github.com/matrix-org/complement"

PACKAGES: Final = (
    *("csapi", ".", "msc3391", "msc3757", "msc3874", "msc3890", "msc3902", "msc3930", "msc3967"),
    *("msc4140", "msc4155", "msc4222", "msc4306"),
)
"""Folders of Complement's tests: the specification, and the proposals that Synapse is tested with."""

NOT_RUN: Final = {
    "msc2836": "event_relationships, a proposal of 2020 that nobody goes on with; Synapse is not tested with it either",
}
"""The other folders, and why."""

TEST_MAIN: Final = """package {package}

import (
	"testing"

	"github.com/matrix-org/complement"
	"github.com/matrix-org/complement/b"
	"github.com/matrix-org/complement/config"
	"github.com/matrix-org/complement/ct"

	"ranvier.invalid/conformance/deploy"
)

func TestMain(m *testing.M) {{
	complement.BlueprintDeployer = func(
		t ct.TestLike, blueprint b.Blueprint, cfg *config.Complement,
	) complement.Deployment {{
		return deploy.NewOf(t, blueprint, cfg)
	}}
	complement.TestMain(m, "{namespace}", complement.WithDeployment(
		func(t ct.TestLike, count int, cfg *config.Complement) complement.Deployment {{
			return deploy.New(t, count, cfg)
		}}))
}}
"""

BLUEPRINT_DEPLOYER: Final = """
// BlueprintDeployer deploys a blueprint where it is set; Complement itself lets only numbers of servers be deployed
// in another way.
var BlueprintDeployer func(t ct.TestLike, blueprint b.Blueprint, config *config.Complement) Deployment
"""


def find_source() -> Path:
    """Complement's files: the checkout that the environment names, or what Go downloads."""
    if named := os.environ.get("COMPLEMENT_DIR"):
        return Path(named).resolve()
    version = re.search(rf"{re.escape(MODULE)} (\S+)", (HERE / "go.mod").read_text())
    assert version is not None, "go.mod names Complement's version"
    done = subprocess.run(
        ["go", "mod", "download", "-json", f"{MODULE}@{version[1]}"], capture_output=True, text=True, cwd=HERE
    )
    answer: dict[str, str] = json.loads(done.stdout or "{}")
    if "Dir" not in answer:
        sys.exit(
            f"Go cannot bring Complement ({answer.get('Error', done.stderr)}); name a checkout in COMPLEMENT_DIR"
        )
    return Path(answer["Dir"])


def write_overlay(source: Path) -> Path:
    """Replace the tests' entry points, and let the old way to deploy go the new way too."""
    replaced: dict[str, str] = {}
    for number, file in enumerate(sorted((source / "tests").rglob("main_test.go"))):
        text = file.read_text()
        package = re.search(r"^package (\w+)", text, re.MULTILINE)
        namespace = re.search(r'TestMain\(m, "([^"]+)"', text)
        assert package is not None, file
        ours = WORK / f"main_test_{number}.go"
        ours.write_text(
            TEST_MAIN.format(package=package[1], namespace=namespace[1] if namespace else package[1])
        )
        replaced[str(file)] = str(ours)
    main = source / "test_main.go"
    deploys = "return testPackage.OldDeploy(t, blueprint)"
    text = main.read_text()
    assert deploys in text, "Complement deploys in another way now"
    ours = WORK / "test_main.go"
    ours.write_text(
        text.replace(
            deploys,
            "if BlueprintDeployer != nil {\n\t\t"
            "return BlueprintDeployer(t, blueprint, testPackage.Config)\n\t}\n\t" + deploys,
        )
        + BLUEPRINT_DEPLOYER
    )
    replaced[str(main)] = str(ours)
    overlay = WORK / "overlay.json"
    overlay.write_text(json.dumps({"Replace": replaced}))
    return overlay


def write_module_file(source: Path) -> Path:
    """A go.mod of this run, which may grow sums that ours need not carry."""
    module_file = WORK / "go.mod"
    text = (HERE / "go.mod").read_text()
    if "COMPLEMENT_DIR" in os.environ:
        text += f"\nreplace {MODULE} => {source}\n"
    module_file.write_text(text)
    sums = HERE / "go.sum"
    (WORK / "go.sum").write_text(sums.read_text() if sums.exists() else "")
    return module_file


def run_tests(source: Path, packages: Sequence[str], arguments: Sequence[str]) -> dict[str, str]:
    """Test -> "pass", "fail" or "skip", subtests included; a line on the terminal for each that is done."""
    command = [
        *(
            "go",
            "test",
            f"-modfile={write_module_file(source)}",
            "-mod=mod",
            f"-overlay={write_overlay(source)}",
        ),
        *("-json", "-p=1", "-count=1", "-timeout=90m", *arguments),
        *(f"{MODULE}/tests" if package == "." else f"{MODULE}/tests/{package}" for package in packages),
    ]
    environment = {
        **os.environ,
        "COMPLEMENT_BASE_IMAGE": "none",
        "COMPLEMENT_HOSTNAME_RUNNING_COMPLEMENT": "localhost",
        "RANVIER": os.environ.get("RANVIER", str(ROOT / ".venv/bin/ranvier")),
    }
    results: dict[str, str] = {}
    with (
        (WORK / "output.log").open("w") as log,
        subprocess.Popen(command, cwd=HERE, env=environment, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            note_event(line, results, log.write)
    if not results:
        sys.exit(f"no test was run; see {WORK / 'output.log'}")
    return results


def note_event(line: str, results: dict[str, str], log: Any) -> None:
    """Take in a line of `go test -json`."""
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        log(line)
        return
    log(event.get("Output", ""))
    if event["Action"] in ("pass", "fail", "skip") and "Test" in event:
        name = f"{event['Package'].removeprefix(f'{MODULE}/')}:{event['Test']}"
        results[name] = event["Action"]
        if "/" not in event["Test"]:
            print(f"{event['Action']:5} {name}", flush=True)


def tell_changes(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """What is better and what is worse than in the results that are kept."""
    for name in sorted(now):
        old = before.get(name)
        if old is not None and old != now[name]:
            print(f"changed: {name}: {old} -> {now[name]}")
    counts = Counter(now.values())
    print(f"{counts['pass']} passed, {counts['fail']} failed, {counts['skip']} skipped")


def build_page(results: Mapping[str, str], reasons: Mapping[str, str]) -> str:
    """docs/conformance.md."""
    parts = {name: result for name, result in results.items() if is_part(name)}
    whole = {name: result for name, result in results.items() if name not in parts}
    lines = [
        "# Conformance",
        "",
        "<!-- Written by `make conformance`. -->",
        "",
        "[Complement](https://github.com/matrix-org/complement) against this server, started as plain processes.",
        "",
        "| package | tests: passed | failed | skipped | their parts: passed | failed | skipped |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for package in sorted({name.partition(":")[0] for name in whole}):
        counts = [
            Counter(result for name, result in some.items() if name.startswith(f"{package}:"))
            for some in (whole, parts)
        ]
        row = [str(count[result]) for count in counts for result in ("pass", "fail", "skip")]
        lines.append(f"| {' | '.join([package, *row])} |")
    lines += ["", "A test fails with any of its parts.", "", *_failures(results, reasons)]
    lines += ["", "| package that is not run | why |", "| --- | --- |"]
    lines += [f"| tests/{package} | {why} |" for package, why in NOT_RUN.items()]
    return "\n".join(lines) + "\n"


def is_part(name: str) -> bool:
    """Whether it is a part of a test."""
    return "/" in name.partition(":")[2]


def _failures(results: Mapping[str, str], reasons: Mapping[str, str]) -> Iterable[str]:
    """The tests that fail, or those of their parts that do."""
    failed = sorted(name for name, result in results.items() if result == "fail")
    if failed:
        yield from ("| test that fails | why |", "| --- | --- |")
        for name in failed:
            if not any(other.startswith(f"{name}/") for other in failed):
                yield f"| {name} | {reasons.get(name, 'not looked into yet')} |"


def main(arguments: Sequence[str]) -> None:
    """Run, compare, write down. A run of some tests changes only their results."""
    WORK.mkdir(parents=True, exist_ok=True)
    packages = [argument for argument in arguments if argument in PACKAGES]
    rest = [argument for argument in arguments if argument not in PACKAGES]
    results = run_tests(find_source(), packages or PACKAGES, rest)
    before: dict[str, str] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    tell_changes(before, results)
    kept = {**before, **results} if packages or rest else results
    RESULTS.write_text(json.dumps(dict(sorted(kept.items())), indent=0) + "\n")
    reasons: dict[str, str] = json.loads(REASONS.read_text()) if REASONS.exists() else {}
    PAGE.write_text(build_page(kept, reasons))


if __name__ == "__main__":
    main(sys.argv[1:])
