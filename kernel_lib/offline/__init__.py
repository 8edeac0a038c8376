"""What only the laptop needs: running notebooks, the demo, making its material."""
