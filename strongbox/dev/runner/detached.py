"""`strongbox dev up --detach` runs this: the runner, which tells over a pipe how starting went, then stays.

Called as `python -m strongbox.dev.runner.detached FD REQUEST`; REQUEST is commands.Up as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from strongbox.dev.layout import Wishes
from strongbox.dev.runner.commands import DevError, Up, up


def main(descriptor: int, request: str) -> int:
    """Run until a signal; 1 when it did not come up."""
    values = json.loads(request)
    asked = Up(**{**values, "folder": Path(values["folder"]), "wishes": Wishes(**values["wishes"])})

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        up(asked, say, on_ready=lambda: _tell(descriptor, {"ok": True}))
    except DevError as error:
        print(error, file=sys.stderr, flush=True)
        _tell(descriptor, {"error": str(error)})
        return 1
    return 0


def _tell(descriptor: int, answer: dict[str, object]) -> None:
    try:
        os.write(descriptor, json.dumps(answer).encode() + b"\n")
        os.close(descriptor)
    except OSError:
        pass  # who asked has gone; the cluster stays


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
