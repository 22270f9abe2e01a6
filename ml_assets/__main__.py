"""The command `ml-assets`. What needs no Dagster, which takes seconds to import, starts without it."""

import sys

ONLINE = ("serve", "replay", "keys")


def main() -> None:
    """Runs a command; the module that has it is imported then."""
    if sys.argv[1:2] == ["new"]:
        from ml_assets.scaffold.commands import app
    elif len(sys.argv) > 1 and sys.argv[1] in ONLINE:
        from ml_assets.serving.commands import app
    else:
        from ml_assets.cli import app
    app()


if __name__ == "__main__":
    main()
