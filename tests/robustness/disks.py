"""The nodes' disks, which are held in memory: what three members of etcd write waits for nobody else's disk.

Three members on one disk that is busy with other things can stand still for longer than the ten seconds
after which a cluster seals itself, when a fault writes a few hundred megabytes: no fault of the product.
A process that is killed finds its files as it left them all the same; what disks do at a loss of power is not
attacked here. One of the disks is small, so that it can be filled.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


class Disks:
    """Mounts of this process's own namespace (`unshare --mount`), by the name of a node."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._mounted = folder, list[str]()

    def mount(self, node: str, size: str) -> None:
        """Give a node a disk of `size` (as mount(8) writes it) as its folder."""
        disk = self._folder / node
        disk.mkdir(mode=0o700)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", str(disk)], check=True
        )
        self._mounted.append(node)

    def unmount(self, *, keep_logs: bool) -> None:
        """Give them up; logs may stay, in `logs-of-NODE`."""
        for node in self._mounted:
            disk = self._folder / node
            if keep_logs:
                shutil.copytree(disk / "logs", self._folder / f"logs-of-{node}", dirs_exist_ok=True)
            subprocess.run(["umount", "-l", str(disk)], check=False)
        self._mounted.clear()
