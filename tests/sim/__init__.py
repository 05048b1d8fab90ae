"""A simulation of several homeservers in one process: one seed decides everything. See docs/simulator.md."""
