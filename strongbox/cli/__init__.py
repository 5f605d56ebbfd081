"""The command `strongbox`, in the manner of vault and kubectl.

Exit status: 0; 1 refused or failed, with the reason on stderr; 2 a wrong command line, or sealed.
Secrets, tokens and shares come from stdin, files, prompts and STRONGBOX_TOKEN, never from the command line,
where every user of the machine can read them.

Where to look:
    app                       the tree of commands, and how it ends
    commands                  each command
    connect                   from the environment to a client, from an error to an exit status
    input_values, shares      what comes in
    output                    what goes out
    policy_file, policy_test  policies in files, and trying them
"""

from strongbox.cli.app import main

__all__ = ["main"]
