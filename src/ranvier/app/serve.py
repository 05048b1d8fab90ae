"""`ranvier serve`: from a configuration to a process that answers until it is told to stop."""

import gc
import logging
import sys
from typing import Final

import uvloop

from ranvier.app.build import assemble, open_ports
from ranvier.app.config import Config
from ranvier.app.lifecycle import Running, run_until_signal
from ranvier.app.listeners import Listener
from ranvier.app.logs import set_up_logs
from ranvier.http.endpoint import Api

log = logging.getLogger(__name__)

SWITCH_INTERVAL_S: Final = 0.0005
"""How long a thread may hold the interpreter while another wants it: the database thread competes with the
event loop, and handing over sooner raised the throughput of both by a third."""

GC_THRESHOLDS: Final = (50_000, 20, 50)
"""Most of what a request makes is freed by reference counting; looking for cycles rarely costs less."""


def serve(config: Config) -> None:
    """Run until SIGTERM or SIGINT.

    Raises: SetupFault, CannotListen, StoreFault: faults that the administrator can mend.
    """
    set_up_logs(config.log)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(*GC_THRESHOLDS)
    uvloop.run(_serve(config))


async def _serve(config: Config) -> None:
    ports = await open_ports(config)
    try:
        homeserver = assemble(ports)
        listeners = [
            Listener(listener, homeserver.app(frozenset(Api(name) for name in listener.apis)))
            for listener in config.listeners
        ]
    except BaseException:
        await ports.close()
        raise
    # What is alive now stays alive: it need not be looked through again and again.
    gc.freeze()
    running = Running(homeserver.workers, listeners, homeserver.foundation.waiters.close, homeserver.close)
    await run_until_signal(running, lambda: _tell(config, listeners))


def _tell(config: Config, listeners: list[Listener]) -> None:
    """Say where the server listens, and what a person does next."""
    for listener in listeners:
        log.info("%s listens on %s for %s", config.server_name, listener.url, ", ".join(listener.config.apis))
    address = config.public_base_url or next(
        (one.url for one in listeners if "client" in one.config.apis), None
    )
    if address is not None and config.registration.mode == "open":
        log.info("next: open a Matrix client, choose %s as the homeserver and create an account", address)
    elif address is not None:
        log.info(
            "next: make an account with `ranvier user add NAME`, then sign in with a Matrix client at %s",
            address,
        )
