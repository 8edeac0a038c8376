"""Where we run: paths, files, device, clock, progress."""
