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
# # FB3: frozen features
#
# SVR or ridge regression on embeddings of encoders that nothing trains, or on n-grams: the cheapest
# member of an ensemble. Its folds are those of `fb3_train` with the same seed, so both can be
# blended; `fb3_infer` predicts with either kind of run.
#
# - **Reads** the competition's `train.csv`, the encoders' folders, and the `kernel_lib` dataset.
# - **Writes** the run folder `run/`: fold models, out-of-fold predictions, `report.html`. The
#   encoders are not in it: attach them to the inference notebook, too.
# - **Takes** no network, and no GPU if the encoders are small. Finished folds are kept when it runs
#   again on the same folder.

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
# The only cell to edit. All names, meanings and defaults are in
# `kernel_lib/tasks/feature_settings.py`; inference reads them back from the run folder.

# %% tags=["parameters"]
from kernel_lib.tasks.feature_settings import FeatureSettings

settings = FeatureSettings(
    method="svr",  # or "ridge"; "tfidf_ridge" reads n-grams and needs no encoder
    encoders=("deberta-v3-base",),  # folder names under the inputs, or paths; several side by side
    max_length=512,  # longer texts are read in windows of so many tokens
    n_folds=4,  # as in fb3_train, like seed and fold_scheme
    time_budget_seconds=8.5 * 3600,  # for a submission's 9 hours; a mere training session has 12
    debug=False,  # True: 200 rows, 2 folds
).overridden()  # by the environment variable KERNEL_LIB_SETTINGS, if it is set

# %% [markdown]
# ## Data and folds

# %%
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.wheels import attach_wheels
from kernel_lib.tasks.features import FeatureTask

clock = Clock(settings.time_budget_seconds)
attach_wheels()  # iterative-stratification is not on Kaggle's image
task = FeatureTask(settings)
train = task.read_train()
train.describe().round(2)

# %%
folds = task.folds(train)
train[list(settings.target_columns)].groupby(folds).mean().round(3)

# %% [markdown]
# ## Counted features
#
# They stand beside the embeddings or n-grams; here is how each goes with the scores.

# %%
import pandas as pd

from kernel_lib.tasks.features import text_of
from kernel_lib.text.hand_features import FEATURES, hand_features

examples = task.encode(train)
counted = pd.DataFrame(hand_features([text_of(each) for each in examples]), columns=list(FEATURES))
targets = train[list(settings.target_columns)]
pd.DataFrame({name: counted.corrwith(targets[name]) for name in targets}).round(2)

# %% [markdown]
# ## Fit
#
# Every text is read once by each encoder; then a fold takes seconds, and is saved as it ends.

# %%
from kernel_lib.tasks.feature_folds import cross_validate_features
from kernel_lib.training.record import score_line, score_table

run = cross_validate_features(task, examples, folds, clock=clock)

# %% [markdown]
# ## Scores
#
# The last row scores all out-of-fold predictions together; the mean of the folds is another number.

# %%
print(score_line(run))
score_table(run)

# %%
from kernel_lib.results.report import write_report

if run.finished_folds():
    print(write_report(run))
for path in sorted(run.folder.rglob("*")):
    if path.is_file():
        print(f"{path.stat().st_size / 1e6:10.2f} MB  {path.relative_to(run.folder)}")
