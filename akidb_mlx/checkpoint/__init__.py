"""What a model directory says, read from its files before anything is loaded."""
