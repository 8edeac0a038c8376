"""From fold weights to what is handed in and looked at."""
