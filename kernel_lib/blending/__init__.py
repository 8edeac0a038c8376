"""``make blend``: weights for runs, found at home on their out-of-fold predictions.

- ``rows``: these predictions side by side, by id; ``methods``: how weights are fitted to them.
- ``search``: scores of rows that the weights were not learned from, and which runs help.
- ``blend``: the command (start here); ``outcome``, ``view``: what comes out.

Inference reads the result (``results.blend_file``) and needs nothing of this room.
"""
