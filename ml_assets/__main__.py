"""The command `ml-assets`. What concerns the online scorer starts without Dagster, which takes seconds to import."""

import sys

ONLINE = ("serve", "replay", "keys")


def main() -> None:
    """Runs a command; the module that has it is imported then."""
    if len(sys.argv) > 1 and sys.argv[1] in ONLINE:
        from ml_assets.serving.commands import app
    else:
        from ml_assets.cli import app
    app()


if __name__ == "__main__":
    main()
