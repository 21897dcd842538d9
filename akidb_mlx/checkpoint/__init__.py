"""The description of a model, read from the files of its directory before anything is loaded."""
