"""From start to exit: harden, assemble, listen, say so, serve; on SIGTERM or SIGINT drain and go.

* Hardening comes before anything that could hold a key.
* The server listens whether or not etcd answers; until the first session it says "not serving" (the seal
  service serves at once: its health and seal status are for exactly those times). Losing a session later
  changes nothing: failing over etcd's leader loses every session at once, and requests outlive that.
* For an upgrade (`READY`) it is ready only when it has reached the seal service once, sealed or not: with a
  wrong setting it would answer SEALED for ever, and the old pods would be taken away. It does not become
  unready later: a process that answers SEALED is better than none.
* Stopping: health says "not serving"; `NOTICE` later no more calls are taken, what is in flight ends, and the
  session is revoked.
* Exit 0 after a signal, 1 when a background coroutine failed, 2 for settings that make no sense.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable

import structlog
import uvloop

from strongbox import config, logs
from strongbox.config import PREFIX, ConfigError, Settings
from strongbox.crypto.memory_protection import harden_process
from strongbox.process.runtime import Runtime
from strongbox.rpc.method_rules import NoRule

NOTICE = 0.3  # seconds between "not serving" and taking no more calls; the gateway checks health every 1 s
GRACE = 1.6  # seconds for what is in flight
LAST = 2.0  # seconds for revoking the session and closing
Assemble = Callable[[Runtime], Awaitable[None]]
_log = structlog.get_logger(__name__)


def run(service: str, assemble: Assemble) -> None:
    """Run as `service` until stopped; ends the process."""
    warnings = harden_process()
    try:
        settings = config.load(service)
    except ConfigError as error:
        print(f"{service}: {error}", file=sys.stderr)
        sys.exit(2)
    logs.configure(settings.log_level, service=service, node=settings.node_id)
    for warning in warnings:
        _log.warning("memory hygiene is not complete", why=warning)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(_live(settings, assemble))
    if isinstance(code, str):
        _again(code)
    sys.exit(code)


async def _live(settings: Settings, assemble: Assemble) -> int | str:
    """The exit code; or, to be run again, the address to listen at."""
    try:
        runtime = Runtime(settings)
    except (OSError, RuntimeError) as error:
        _log.error("the process cannot start", why=type(error).__name__, listen=settings.listen)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, runtime.stop)
    try:
        await assemble(runtime)
    except NoRule as error:
        _log.error("the process refuses to start", why=str(error))
        await runtime.close()
        return 1
    tune_garbage_collection()
    await runtime.start()
    announce(runtime.listening)
    ready = asyncio.create_task(_serve_when_ready(runtime), name="readiness")
    await runtime.stopping.wait()
    ready.cancel()
    await stop(runtime)
    return runtime.listening if runtime.restarting else int(runtime.failed)


async def _serve_when_ready(runtime: Runtime) -> None:
    is_seal = runtime.settings.service == "seal"
    if not is_seal:
        await runtime.session.current()
    await runtime.health.set_serving(True)
    _log.info("serving", address=runtime.address)
    if not is_seal:  # which says for itself when it is ready
        await runtime.keys.heard.wait()
        await runtime.health.set_ready(True)


async def stop(runtime: Runtime) -> None:
    """Stop without a client noticing. Before a restart health does not say "not serving"."""
    _log.info("stopping", comes_back=runtime.restarting)
    if not runtime.restarting:
        await runtime.health.set_serving(False)
        await asyncio.sleep(NOTICE)
    await runtime.drain(GRACE)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST):
            await runtime.close()


def announce(address: str) -> None:
    """Print the one line on stdout, for whoever started this process; the reader may be gone by now."""
    with contextlib.suppress(OSError):
        print(json.dumps({"ready": True, "address": address}), flush=True)


def tune_garbage_collection() -> None:
    """Modules and compiled protos never go away, so they are not looked at again: 40 µs less a request."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _again(listen: str) -> None:
    """Run the same program in this process: same pid, same port, none of the memory."""
    os.environ[PREFIX + "LISTEN"] = listen
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  ourselves
