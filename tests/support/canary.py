"""Search for a secret wherever it could have been left: every byte of every file, and what the kernel shows.

Looked for as it is and in the disguises it could have slipped into: hex, base64 (at any alignment inside a
longer text, both alphabets), JSON escapes, URL escapes. Files that grow or vanish while being read are
normal in a running cluster; what could not be read is reported, never passed over.
"""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
_SHORTEST = 8  # below this a match means nothing


@dataclass(frozen=True, slots=True)
class Sighting:
    """Where which secret was seen, in which form. Holds no secret."""

    where: str
    what: str
    form: str


@dataclass(slots=True)
class Search:
    """What was searched, so that a search of nothing cannot pass for a clean one."""

    sightings: list[Sighting]
    files: int = 0
    bytes: int = 0

    def require_clean(self, least_files: int) -> None:
        """Raises AssertionError naming what was seen where."""
        assert not self.sightings, "\n".join(map(str, self.sightings))
        assert self.files >= least_files, f"only {self.files} files were searched"


class Canaries:
    """Secrets by a public name each: text or raw bytes, of 8 bytes at least."""

    def __init__(self, secrets: Mapping[str, str | bytes]) -> None:
        self._needles = list(_needles(secrets))
        self._overlap = max(len(needle) for needle, _, _ in self._needles) - 1

    def search(
        self, folders: Iterable[Path], pids: Iterable[int] = (), exempt: Iterable[Path] = ()
    ) -> Search:
        """All files below `folders` but `exempt`; and of each process its command line, environment and every
        file it has open, wherever that is."""
        search, passed = Search([]), {path.resolve() for path in exempt}
        seen: set[Path] = set()
        for path in (*_files(folders), *_open_files(pids), *_kernel_files(pids)):
            if path.resolve() not in passed | seen:
                seen.add(path.resolve())
                self._search_file(path, search)
        return search

    def _search_file(self, path: Path, search: Search) -> None:
        before, found = b"", set()
        try:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    search.bytes += len(chunk)
                    if chunk == _ZEROS:  # etcd allocates its log ahead
                        before = b""
                        continue
                    found |= set(self._seen_in(before + chunk))
                    before = chunk[-self._overlap :]
        except (FileNotFoundError, ProcessLookupError):
            return
        search.files += 1
        search.sightings += [Sighting(str(path), what, form) for what, form in sorted(found)]

    def _seen_in(self, data: bytes) -> Iterator[tuple[str, str]]:
        return ((what, form) for needle, what, form in self._needles if needle in data)


def _needles(secrets: Mapping[str, str | bytes]) -> Iterator[tuple[bytes, str, str]]:
    for what, secret in secrets.items():
        raw = secret.encode() if isinstance(secret, str) else secret
        if len(raw) < _SHORTEST:
            raise ValueError(f"{what} is too short to be searched for")
        forms = {needle: form for form, needle in _forms(raw)}
        yield from ((needle, what, form) for needle, form in forms.items() if len(needle) >= _SHORTEST)


def _forms(raw: bytes) -> Iterator[tuple[str, bytes]]:
    yield "URL", urllib.parse.quote_from_bytes(raw).encode()
    yield "JSON", json.dumps(raw.decode("utf-8", "replace")).encode()[1:-1]
    yield "hex", raw.hex().encode()
    yield "HEX", raw.hex().upper().encode()
    for offset in range(3):
        # The characters that depend on this secret alone, wherever in a longer base64 text it stands.
        first, last = -(-offset * 8 // 6), (offset + len(raw)) * 8 // 6
        padded = bytes(offset) + raw + bytes(-(offset + len(raw)) % 3)
        yield "base64", base64.b64encode(padded)[first:last]
        yield "base64url", base64.urlsafe_b64encode(padded)[first:last]
    yield "plain", raw


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _open_files(pids: Iterable[int]) -> Iterator[Path]:
    for pid in pids:
        for link in _listed(Path(f"/proc/{pid}/fd")):
            try:
                if link.is_file():
                    yield link  # opened through /proc: deleted files are read as well
            except OSError:
                continue


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _kernel_files(pids: Iterable[int]) -> Iterator[Path]:
    return (Path(f"/proc/{pid}/{name}") for pid in pids for name in ("cmdline", "environ"))
