"""Finished runs, at home: ``merge`` joins several notebooks' folds, ``half`` makes float16 copies.

Inference reads what they write and needs nothing of this room.
"""
