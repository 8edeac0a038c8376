"""Training: losses, layer-wise rates, FGM, the one loop, the folds."""
