"""What a competition adds to the kit: settings, encoding, model, loss, scores. One file a task."""
