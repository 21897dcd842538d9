"""`python -m akidb_mlx.stdio` is `akidb-mlx stdio`."""

import sys

from akidb_mlx.cli import main

if __name__ == "__main__":
    main(["stdio", *sys.argv[1:]])
