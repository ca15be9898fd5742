"""Training and fine-tuning: recordings in, a model out."""
