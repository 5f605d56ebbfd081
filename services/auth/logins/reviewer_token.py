"""The reviewer's token that Kubernetes gives the auth pod itself, in a file that the kubelet renews.

Rules:
* It is read again for each login: it is valid for an hour, and replaced before that.
* It goes to the API server of the pod's own cluster (`STRONGBOX_REVIEWER_HOST`) and to no other, whatever
  host is configured: another cluster's logins need a token of that cluster, given with the configuration.
* If the file is not there or holds no token, or if its account may not ask for reviews, the configuration's
  token is used, if there is one.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import structlog

from services.auth.logins.kubernetes_roles import Config
from services.auth.logins.token_review import MAX_JWT, is_jwt

_log = structlog.get_logger(__name__)


class OwnReviewer:
    """Reads the token; one per process. `file` None: Kubernetes gives this process no token."""

    def __init__(self, host: str = "", file: Path | None = None) -> None:
        self._where, self._file = _place(host), file

    def is_for(self, config: Config) -> bool:
        """Whether the token is for the configured server."""
        return self._file is not None and _place(config.host) == self._where

    def token(self, config: Config) -> str:
        """The token as it is now; "" when there is none for that server. Never raises."""
        if self._file is None or not self.is_for(config):
            return ""
        try:
            # The kubelet keeps it in memory, and it is a kilobyte or two: no thread is needed.
            with self._file.open(encoding="ascii") as file:
                text = file.read(MAX_JWT + 1).strip()
        except (OSError, UnicodeDecodeError) as error:
            _log.warning("the reviewer's token cannot be read", why=type(error).__name__)
            return ""
        if not is_jwt(text):
            _log.warning("the reviewer's token cannot be read", why="it is no signed token")
            return ""
        return text


def _place(host: str) -> tuple[str, int]:
    """Host name and port, whichever way they are written."""
    url = urlsplit(host)
    return (url.hostname or "").lower(), url.port or 443
