"""Finished runs, at home: ``merge`` joins folds of several notebooks, ``half`` makes float16 copies.

Inference reads what they write and needs nothing of this room.
"""
