"""Where torch lives: labels and photographs in, a predictor out."""
