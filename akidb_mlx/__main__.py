"""`python -m akidb_mlx` is the command line, as is `akidb-mlx`."""

import os

from akidb_mlx.runtime.garbage import no_collection


def main() -> None:
    """Run the command line."""
    # pydantic reads the metadata of all installed packages to look for plugins, of which this program needs none.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    with no_collection():
        from akidb_mlx.cli import main as run
    run()


if __name__ == "__main__":
    main()
