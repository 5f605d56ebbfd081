"""Starts one container: `python -I -S launch.py FILE FD`, where FILE says (JSON) what and how.

It has namespaces of its own (mounts, processes, host name, IPC) in the pod's network, a root that holds what
its image and volumes hold, and the user, groups and capabilities that the manifest says. The process's id is
written to FD; the exit status is the process's, 128 and the number if a signal ended it. Nothing but the
standard library: it starts some twenty times.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

_NEWNS, _NEWUTS, _NEWIPC, _NEWPID, _NEWNET = 0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000
_RDONLY, _NOSUID, _NODEV, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
_CAPBSET_DROP, _NO_NEW_PRIVS = 24, 38
_DEVICES = ("null", "zero", "full", "random", "urandom")
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """The exit status."""
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with Path("/run/netns", spec["network"]).open("rb") as network:
        _check(_libc.setns(network.fileno(), _NEWNET))
    _check(_libc.unshare(_NEWNS | _NEWPID | _NEWUTS | _NEWIPC))
    told = int(sys.argv[2])
    child = os.fork()
    if child == 0:
        os.close(told)  # or whoever waits for its end would wait for this process's
        try:
            _become(spec)
        except BaseException as error:
            print(f"launch: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(127)
    os.write(told, str(child).encode())
    os.close(told)
    _, status = os.waitpid(child, 0)
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _become(spec: dict[str, Any]) -> None:
    socket.sethostname(spec["hostname"])
    root = Path(spec["root"])
    root.mkdir(parents=True, exist_ok=True)
    _mount("none", "/", "", _REC | _PRIVATE)
    _mount("tmpfs", str(root), "tmpfs", _NOSUID, "mode=0755")
    _system(root, [target for _, target, _ in spec["binds"]], shell=spec["shell"])
    for path, text in spec["files"].items():
        _inside(root, path).write_text(text, encoding="utf-8")
    for source, target, readonly in spec["binds"]:
        _bind(source, _inside(root, target), readonly=readonly)
    if spec["readonly"]:
        _mount("tmpfs", str(root), "", _REMOUNT | _RDONLY)
    os.chroot(root)
    os.chdir(spec["folder"])
    _drop(spec)
    # Python has these ignored, and a program would inherit that.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.umask(0o022)
    program = spec["command"][0]
    os.execvpe(program, spec["command"], spec["environment"])


def _system(root: Path, targets: list[str], *, shell: bool) -> None:
    """This machine's programs and libraries (without `shell`: libraries), /proc, /dev, and empty folders."""
    for name in ("host", "etc", "proc", "dev", "dev/shm", "run", "var", "var/lib", "tmp"):
        (root / name).mkdir()
    (root / "tmp").chmod(0o1777)
    (root / "var/run").symlink_to("../run")
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "usr"):
        here = Path("/", name)
        if here.is_symlink():
            (root / name).symlink_to(here.readlink())
        elif here.is_dir():
            _bind(str(here), root / "host" / name, readonly=True)
            wanted = None if shell else "lib"
            _links(here, root / name, targets, wanted)
    if Path("/etc/ld.so.cache").exists():
        _bind("/etc/ld.so.cache", root / "etc/ld.so.cache", readonly=True)
    _mount("proc", str(root / "proc"), "proc", _NOSUID | _NODEV)
    _mount("tmpfs", str(root / "dev/shm"), "tmpfs", _NOSUID | _NODEV)
    for name in _DEVICES:
        _bind(f"/dev/{name}", root / "dev" / name, readonly=False)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (root / "dev" / name).symlink_to(target)


def _links(here: Path, there: Path, targets: list[str], only: str | None) -> None:
    """A folder of links to what is in `here`, real folders where something else is to be mounted below."""
    there.mkdir()
    for entry in here.iterdir():
        place = there / entry.name
        if any(target.startswith(f"{entry}/") for target in targets):
            _links(entry, place, targets, None if only and entry.name.startswith(only) else only)
        elif f"{entry}" not in targets and (only is None or entry.name.startswith(only)):
            place.symlink_to(f"/host{entry}")


def _inside(root: Path, path: str) -> Path:
    """The place of `path`, its folder made. A link of the host's must not lead out."""
    place = root / path.lstrip("/")
    if path.startswith("/var/run/"):
        place = root / path.removeprefix("/var/").lstrip("/")
    for parent in reversed(place.parents):
        if parent.is_relative_to(root) and parent.is_symlink():
            raise ValueError(f"{path}: {parent} is a link")
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _bind(source: str, target: Path, *, readonly: bool) -> None:
    if Path(source).is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.touch()
    _mount(source, str(target), "", _BIND | _REC)
    if readonly:
        _mount(source, str(target), "", _BIND | _REMOUNT | _RDONLY | _NOSUID)


def _drop(spec: dict[str, Any]) -> None:
    """The user, and no capability that is not `kept` (numbers)."""
    for number in range(64):
        if number not in spec["kept"] and _libc.prctl(_CAPBSET_DROP, number, 0, 0, 0) != 0:
            break  # the last one that this kernel knows
    os.setgroups(spec["groups"])
    os.setresgid(spec["group"], spec["group"], spec["group"])
    os.setresuid(spec["user"], spec["user"], spec["user"])
    if spec["no_new_privileges"]:
        _check(_libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    made = _libc.mount(source.encode(), target.encode(), kind.encode() or None, flags, data.encode() or None)
    if made != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount {source} at {target}: {os.strerror(number)}")


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    sys.exit(main())
