"""The command `strongbox`, in the manner of vault and kubectl.

Exit status: 0; 1 refused or failed, with the reason on stderr; 2 a wrong command line, or sealed.
Secrets, tokens and shares come from stdin, files, prompts and STRONGBOX_TOKEN, never from the command line,
where every user of the machine can read them.
"""

from strongbox.cli.app import main

__all__ = ["main"]
