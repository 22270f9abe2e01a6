"""The command `ml-assets`. What needs no Dagster, which takes seconds to import, starts without it."""

import sys

from ml_assets.folders import BucketError
from ml_assets.settings import SecretError

ONLINE = ("serve", "replay", "keys")


def main() -> None:
    """Runs a command; the module that has it is imported then."""
    if sys.argv[1:2] == ["new"]:
        from ml_assets.scaffold.commands import app
    elif len(sys.argv) > 1 and sys.argv[1] in ONLINE:
        from ml_assets.serving.commands import app
    else:
        from ml_assets.cli import app
    try:
        app()
    except (BucketError, SecretError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
