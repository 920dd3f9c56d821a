"""The `authwright` command."""

import sys


def main() -> None:
    """Run the command; with the guard alone installed, say how to install the server."""
    try:
        from authwright.cli.main import app
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("authwright"):
            raise
        print(
            f"The authwright command needs the server, which is not installed here ({error.name} is missing).\n"
            "Install it with:  pip install 'authwright[server]'",
            file=sys.stderr,
        )
        sys.exit(3)
    app()
