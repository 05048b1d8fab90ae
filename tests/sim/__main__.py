"""`make sim SEED=…`: try seeds, tell how it goes, and boil down what fails."""

# ruff: noqa: T201 - a command speaks

import argparse
import logging
import sys
import time

from .minimise import minimise
from .plan import Plan, make_plan
from .quiet import make_quiet_plan, simulate_quiet
from .world import Result, simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="make sim", description=__doc__)
    parser.add_argument("--seed", default="1..20", help="one seed, or the first and the last: 1..200")
    parser.add_argument("--steps", type=int, default=70, help="actions of each seed")
    parser.add_argument("--only", help="numbers of the actions that are left in, as a failure tells them")
    parser.add_argument(
        "--quiet", action="store_true", help="a perfect network, and then nothing is said any more"
    )
    parser.add_argument("--loud", action="store_true", help="print every step")
    parser.add_argument("--log", default="CRITICAL", help="what the servers log, from this level on")
    parser.add_argument("--go-on", action="store_true", help="try all seeds, whatever fails")
    parser.add_argument("--no-minimise", action="store_true", help="tell of a failure as it is")
    options = parser.parse_args()
    logging.basicConfig(level=options.log, format="%(levelname)s %(name)s %(message)s")
    first, _, last = options.seed.partition("..")
    seeds = range(int(first), int(last or first) + 1)
    make, attempt = (make_quiet_plan, simulate_quiet) if options.quiet else (make_plan, simulate)
    steps, started, failed = 0, time.monotonic(), []
    for seed in seeds:
        plan = make(seed, steps=options.steps)
        if options.only is not None:
            plan = plan.keep(frozenset(int(number) for number in options.only.split(",") if number))
        begun = time.monotonic()
        result = attempt(plan, is_loud=options.loud)
        steps += result.steps
        _tell(result, time.monotonic() - begun)
        if result.complaints:
            failed.append(seed)
            if not options.no_minimise:
                print("looking for the fewest actions that do it …", flush=True)
                result = minimise(plan, attempt)
            _tell_failure(result, options.steps, "--quiet " if options.quiet else "")
            if not options.go_on:
                break
    rate = steps / (time.monotonic() - started)
    outcome = f"these do not: {failed}" if failed else "all agree"
    print(f"{len(seeds)} seeds, {steps} steps, {outcome} ({rate:.0f} steps a second)")
    return 1 if failed else 0


def _tell(result: Result, seconds: float) -> None:
    plan = result.plan
    outcome = f"{len(result.complaints)} COMPLAINTS" if result.complaints else "agree"
    print(
        f"seed {plan.seed}: {len(plan.servers)} servers{' and a forger' if plan.has_forger else ''},"
        f" rooms {' '.join(plan.versions)}, {result.steps} steps in {seconds:.1f} s"
        f" ({result.virtual_s / 3600:.1f} h there), {outcome}, {result.trace[:8]}",
        flush=True,
    )


def _tell_failure(result: Result, steps: int, options: str) -> None:
    plan: Plan = result.plan
    for complaint in result.complaints[:10]:
        print(f"  {complaint[:1500]}")
    for action in plan.actions:
        print(f"  {action.number:4} +{action.wait_ms} ms {action.kind}")
    only = ",".join(str(action.number) for action in plan.actions)
    print(f"again: make sim SEED={plan.seed} ARGS='{options}--steps {steps} --only {only} --log INFO'")


if __name__ == "__main__":
    sys.exit(main())
