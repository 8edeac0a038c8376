"""Offline k-fold fine-tuning for Kaggle's NLP competitions.

The floors, from the ground up; a file imports only from floors below its own:

0. ``errors``: what a user can be told.
1. ``config``, ``metrics``: settings, scores.
2. ``runtime``: where we run: paths, files, device, clock, progress.
3. ``text``, ``model``, ``artifacts``: words to batches, batches to outputs, outputs to disk.
4. ``training``: losses, layer-wise rates, FGM, the one loop, the folds.
5. ``tasks``: what a competition adds: settings, encoding, loss, score.
6. ``results``: ensemble, submission, report.
7. ``bench``: how quick all of it is, beside other ways; it does not travel to Kaggle.

Apart from these, ``offline`` holds what only the laptop needs.

Importing the package is light: torch is imported by the modules that need it.
"""

__version__ = "0.1.0"
