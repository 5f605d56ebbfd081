"""`python -m strongbox.dev up|down|status`: the same as `strongbox dev`."""

from strongbox.dev.cli import app

if __name__ == "__main__":
    app()
