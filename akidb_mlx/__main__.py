"""`python -m akidb_mlx` is the command line."""

from akidb_mlx.cli import main

if __name__ == "__main__":
    main()
