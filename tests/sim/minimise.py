"""From a plan that fails to the fewest of its actions that still make it fail."""

from collections.abc import Callable

from .plan import Plan
from .world import Result


def minimise(plan: Plan, attempt: Callable[[Plan], Result], *, attempts: int = 60) -> Result:
    """Leave out ever smaller runs of actions, as long as what is left still fails (delta debugging); `attempts`
    bounds how often it is tried. What fails in the end need not be what failed first."""
    best = attempt(plan)
    size = max(len(plan.actions) // 2, 1)
    left = attempts
    while best.complaints:
        start = 0
        is_smaller = False
        while start < len(best.plan.actions) and left > 0:
            left -= 1
            actions = best.plan.actions
            kept = frozenset(one.number for one in (*actions[:start], *actions[start + size :]))
            found = attempt(best.plan.keep(kept))
            if found.complaints:
                best, is_smaller = found, True
            else:
                start += size
        if left <= 0 or (size == 1 and not is_smaller):
            break
        size = max(size // 2, 1)
    return best
