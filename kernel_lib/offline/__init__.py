"""What only the laptop needs: demo, running notebooks, ``material``, ``upload``, ``rehearsal``."""
