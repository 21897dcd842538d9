"""Known answers of a model, and figures of how close its vectors are to those of its original.

A load needs a few of the modules only, so each is imported by its own name.
"""
