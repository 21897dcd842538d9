"""The engine: a bounded queue of calls, and the owner thread that runs them in batches on any backend."""
