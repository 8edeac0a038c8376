"""``make bench``: this kit beside other ways to do the same work, in one run on one machine.

- ``settings``: what is measured and how much of it; ``essays``: texts of real lengths; ``models``.
- ``ways``: what is compared; ``runner``: what each way gives; ``kit``, ``reference``,
  ``hf_trainer``: how each of them works.
- ``processes``: each measurement in a fresh process; ``meters``: time, memory, arithmetic.
- ``end_to_end``, ``cells``, ``precisions``, ``growth``: the four parts; ``run``: all of them.
- ``table``, ``plot``: what comes out.

Also here: ``ablate`` and what begins with it, which technique pays, each against the base in paired
runs; ``spelling``, floors and test sets; ``pretrain``, a small encoder from nothing.
"""
