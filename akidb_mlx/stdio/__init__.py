"""AkiDB's own protocol over the standard streams, which `akidb-mlx stdio` serves to the process that started it."""
