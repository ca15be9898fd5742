"""The model as it is run: pieces of a signal through a chain of stages."""
