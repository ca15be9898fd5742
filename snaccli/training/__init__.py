"""Training: packed audio in, weights out."""
