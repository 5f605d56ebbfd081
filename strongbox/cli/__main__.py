"""`python -m strongbox.cli`, for where the script is not installed."""

from strongbox.cli.app import main

main()
