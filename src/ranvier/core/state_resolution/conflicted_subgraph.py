"""The conflicted state subgraph (v12)."""

from collections.abc import Collection

from ranvier.core.state_resolution.walk import Walk


def conflicted_subgraph(conflicted: Collection[int], walk: Walk) -> set[int]:
    """The events on any path along auth_events from one conflicted event to another, both ends included.

    Cost: what the conflicted events reach of a greater auth depth than the least of theirs, since no path
    goes below it; one query a step.
    Spec: rooms/v12.md, "Conflicted state subgraph" (MSC4297).
    """
    walk.load(conflicted)
    nodes = walk.nodes
    floor = min((nodes[nid].auth_depth for nid in conflicted), default=0)
    met = set(conflicted)
    edge = set(conflicted)
    while edge:
        walk.load_cited(edge)
        cited_ones = {cited for nid in edge for cited in nodes[nid].auth}
        edge = {nid for nid in cited_ones if nid not in met and nodes[nid].auth_depth > floor}
        met |= edge
    # From the lowest up: an event is on a path if it cites one that is.
    subgraph = set(conflicted)
    for nid in sorted(met - subgraph, key=lambda nid: nodes[nid].auth_depth):
        if not subgraph.isdisjoint(nodes[nid].auth):
            subgraph.add(nid)
    return subgraph
