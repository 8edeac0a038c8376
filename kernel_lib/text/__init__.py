"""From files and words to batches."""
