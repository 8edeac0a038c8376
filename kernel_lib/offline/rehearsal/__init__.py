"""A Kaggle run at home: the ``.ipynb`` that will be pushed, under ``/kaggle``, without a network.

enter      goes into namespaces of its own: no network, a root with only what is listed
sandbox    chooses the isolation this machine can give, and runs a command in it
guard/     inside the notebook's Python: notes what it reaches for, hides what Kaggle lacks
image      which of the packages installed here Kaggle's image has
batch_run  inside the sandbox: executes the notebook, writes Kaggle's log
declare    which notebooks' outputs are inputs of others, and what a template lacks
stage      the inputs under ``/kaggle/input``, from the metadata that will be pushed
kaggle_run one run of one notebook, and what it left behind
leftovers  reading and clearing away whatever that is
hidden     the public three rows, and a made-up hidden test
checks     a run, looked at as Kaggle does
submission what was handed in, looked at as the competition does
plan       what is rehearsed, and with what
rehearse   all of it in order
verdict    what a person reads at the end
"""
