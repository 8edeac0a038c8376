"""Scores in plain numpy, every definition named and sourced."""
