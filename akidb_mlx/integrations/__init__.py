"""Adapters for the libraries that people use; each module needs the extra of its name, and only when it is imported."""
