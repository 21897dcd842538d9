"""`python -m akidb_mlx` is the command line, as is `akidb-mlx`."""

from akidb_mlx.runtime.garbage import no_collection


def main() -> None:
    """Run the command line."""
    with no_collection():
        from akidb_mlx.cli import main as run
    run()


if __name__ == "__main__":
    main()
