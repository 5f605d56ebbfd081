"""Write what follows from tables: `python -m tools.generate_manifests [--check]` (`make manifests`).

    k8s/base/network-policies.yaml                   from the RPCs' rules, and what else connects where
    k8s/components/cert-manager/certificates.yaml    from the identities (strongbox.setup.certificates)
    docs/etcd-roles.md                               from the table of etcd's roles
    docs/configuration.md                            from the settings classes

`--check` writes nothing and exits 1 when something is not current.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from tools import manifests

ROOT = Path(__file__).resolve().parents[1]
FILES: dict[str, Callable[[], str]] = {
    "k8s/base/network-policies.yaml": manifests.network_policies,
    "k8s/components/cert-manager/certificates.yaml": manifests.cert_manager,
    "docs/etcd-roles.md": manifests.etcd_roles,
    "docs/configuration.md": manifests.configuration,
}


def stale() -> list[str]:
    """The files that are not what the tables say."""
    return [name for name, make in FILES.items() if not _is(ROOT / name, make())]


def _is(path: Path, text: str) -> bool:
    return path.exists() and path.read_text("utf-8") == text


def main(words: list[str]) -> int:
    """The exit code."""
    if words == ["--check"]:
        for name in stale():
            print(f"{name} is not current: make manifests", file=sys.stderr)
        return 1 if stale() else 0
    for name, make in FILES.items():
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(make(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
