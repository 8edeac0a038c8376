# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,kaggle,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kaggle:
#     accelerator: nvidiaTeslaT4
#     isGpuEnabled: true
#     isInternetEnabled: false
#     language: python
#     sourceType: notebook
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # FB3: infer
#
# Ensembles the folds of one or more runs, offline: fine-tuned ones and those on frozen features.
#
# - **Reads** run folders (the training notebook's output), the competition's `test.csv` and
#   `sample_submission.csv`, and the `kernel_lib` dataset.
# - **Writes** `submission.csv`: valid in the first seconds (the training rows' means), better after
#   each fold. Folds that do not fit in the time budget are left out, the least valuable first.

# %%
# The same cell in every notebook: nothing may reach a network, and kernel_lib is found wherever
# it is attached: as a dataset in either of Kaggle's mount layouts, or as the repository around us.
import os
import sys
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
inputs = Path(os.environ.get("KERNEL_LIB_KAGGLE_ROOT", "/kaggle")) / "input"
attached = [f.parent for d in range(7) for f in inputs.glob("*/" * d + "kernel_lib/errors.py")]
around = [folder / "kernel_lib" for folder in (Path.cwd(), *Path.cwd().parents)]
libraries = attached or [found for found in around if (found / "errors.py").is_file()][:1]
wanted = f"attach the dataset with kernel_lib, and no other that holds one, to find it in {inputs}"
assert len(libraries) == 1, f"{wanted}; found: {', '.join(map(str, libraries)) or 'none'}"
sys.path.insert(0, str(libraries[0].parent))

from kernel_lib.runtime.release import describe_release

print(describe_release(), "from", libraries[0])

# %% [markdown]
# ## Settings
#
# Where things are; how the models were made is read from each run's `run.json`.

# %% tags=["parameters"]
from kernel_lib.config import InferenceSettings

settings = InferenceSettings(
    runs=(),  # run folders; empty: all that are attached
    blend="",  # blend.json; empty: the one that is attached, or else the mean over runs
    eval_batch_tokens=8192,  # rows of a batch times its width; halved where memory is too small
    time_budget_seconds=8.5 * 3600,  # Kaggle's limit less half an hour
).overridden()  # by the environment variable KERNEL_LIB_SETTINGS, if it is set

# %%
from kernel_lib.results.members import find_runs
from kernel_lib.runtime.clock import Clock
from kernel_lib.training.record import score_table

clock = Clock(settings.time_budget_seconds)
for run in find_runs(settings.runs):
    print(run.folder, "folds", run.finished_folds())
    display(score_table(run))

# %% [markdown]
# ## Predict
#
# Fold by fold, mean over the folds of a run, then over runs: by the weights of an attached
# `blend.json` (`make blend`), or all alike; clipped to the scale; checked against the sample.

# %%
from kernel_lib.results.ensemble import predict_submission

submission = predict_submission(settings, clock)

# %%
import pandas as pd

frame = pd.read_csv(submission, dtype={0: str})
print(f"{submission.resolve()}: {len(frame)} rows, ids and columns as in sample_submission.csv")
frame.describe().round(3)
