"""Offline k-fold fine-tuning for Kaggle's NLP competitions.

The floors, from the ground up; a file imports only from floors below its own:

0. ``errors``, ``config``, ``metrics``: messages, settings, scores.
1. ``runtime``: where we run: paths, files, device, clock, progress.
2. ``text``, ``model``, ``artifacts``: words to batches, batches to outputs, outputs to disk.
3. ``training``: losses, layer-wise rates, FGM, the one loop, the folds.
4. ``tasks``: what a competition adds: settings, encoding, loss, score.
5. ``results``: ensemble, submission, report.

Apart from these, ``offline`` holds what only the laptop needs.

Importing the package is light: torch is imported by the modules that need it.
"""

__version__ = "0.1.0"
