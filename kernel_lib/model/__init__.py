"""From batches to outputs: backbone, pooling, head."""
