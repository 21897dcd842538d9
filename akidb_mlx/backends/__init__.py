"""The libraries that compute vectors, one package each; see `akidb_mlx.engine.backend` for what they implement."""
