"""How calls become batches: a bounded queue, and the owner thread that runs what waits in it, on any backend."""
