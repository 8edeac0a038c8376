"""Triton kernels of the disentangled attention. Importing its modules imports triton.

Only :mod:`kernel_lib.model.attention_triton` imports them, when it is first called.
"""
