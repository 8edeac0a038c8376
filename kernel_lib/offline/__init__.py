"""What only the laptop needs: demo, running notebooks, ``upload`` and ``rehearsal``."""
