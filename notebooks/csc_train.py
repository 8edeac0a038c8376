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
# # Chinese spelling correction: train
#
# K-fold fine-tuning of a Chinese BERT or MacBERT that corrects characters in place.
#
# - **Reads** sentences with and without errors (`train.csv`: id, source, target), a backbone
#   folder, and the `kernel_lib` dataset.
# - **Writes** the run folder `run/`: fold weights, out-of-fold corrections, `report.html`.
# - **Takes** no network. Run it again on the same folder and it goes on where it stopped.

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
# The only cell to edit. All names, meanings and defaults are in `kernel_lib/config/runs.py` and
# `kernel_lib/tasks/spelling_settings.py`; inference reads them back from the run folder.

# %% tags=["parameters"]
from kernel_lib.tasks.spelling import SpellingTask
from kernel_lib.tasks.spelling_settings import SpellingSettings

settings = SpellingSettings(
    backbone="chinese-macbert-base",  # a folder name under the inputs, or a path
    train_files=("train.csv",),  # in the data folder; CSV, TSV, JSON lines, SIGHAN's formats
    confusion_files=(),  # allow noise_rate, and changes within the confusion set only
    system="copy",  # or "detect": a detection head beside the masked-language-model head
    n_folds=4,
    epochs=5,
    batch_size=32,
    max_length=128,  # longer texts are read in windows that overlap
    learning_rate=5e-5,
    layer_decay=0.95,
    mask_rate=0.2,  # share of the right characters that are hidden in training
    noise_rate=0.0,  # share of them that are confused on purpose
    fgm_epsilon=0.0,  # 0.2 adds FGM: nearly twice the time
    time_budget_seconds=8.5 * 3600,  # for a submission's 9 hours; a mere training session has 12
    debug=False,  # True: 200 rows, 2 folds, 1 epoch
).overridden()  # by the environment variable KERNEL_LIB_SETTINGS, if it is set

# %% [markdown]
# ## Sentences and folds
#
# Sentences with the same target stay in one fold: with other errors they are no new sentences.

# %%
from kernel_lib.runtime.clock import Clock

clock = Clock(settings.time_budget_seconds)
task = SpellingTask(settings)
train = task.read_train()
has_errors = train["source"] != train["target"]
train.assign(errors=has_errors, characters=train["source"].str.len()).groupby("domain").agg(
    sentences=("id", "size"), with_errors=("errors", "mean"), longest=("characters", "max")
).round(3)

# %%
folds = task.folds(train)
has_errors.groupby(folds).agg(["size", "mean"]).round(3)

# %% [markdown]
# ## Characters
#
# A character is a token, whatever the tokenizer's pieces are, so that nothing can shift. What the
# vocabulary lacks (`[UNK]`) is copied.

# %%
from kernel_lib.model.location import find_backbone
from kernel_lib.results.plots import plot_token_lengths
from kernel_lib.text.batches import by_window
from kernel_lib.text.tokenizer import build_tokenizer

tokenizer = build_tokenizer(find_backbone(settings.backbone), keep_newlines=settings.keep_newlines)
examples = task.encode(train, tokenizer)
print(train["source"][0])
print(tokenizer.convert_ids_to_tokens(examples[0].input_ids[:60]))
plot_token_lengths(examples, settings.max_length)

# %% [markdown]
# ## Train
#
# Each fold is saved as it ends; `oof.csv` and the scores grow with it.

# %%
from kernel_lib.training.crossval import cross_validate
from kernel_lib.training.record import score_line, score_table

run = cross_validate(task, examples, by_window(folds, examples), tokenizer, clock=clock)

# %% [markdown]
# ## Scores
#
# Of all out-of-fold corrections together, by the likeliest character alone. The same output scores
# very differently by different definitions, so each is named, and the share of clean sentences that
# were changed (FPR) stands beside them.

# %%
print(score_line(run))
score_table(run)

# %%
from kernel_lib.results.corrections import read_corrections, scores_text

oof = read_corrections(run) if run.finished_folds() else None
if oof is not None:
    print(scores_text(oof))

# %% [markdown]
# ## When to change a character
#
# Threshold, confusion set, Chinese characters only, and how often a sentence is read: chosen here,
# on out-of-fold sentences, and kept in `run.json` for inference.

# %%
import pandas as pd

from kernel_lib.results.corrections import decoding_text
from kernel_lib.results.spelling_plots import plot_threshold

print(decoding_text(run))
if oof is not None:
    curve, chosen = pd.DataFrame(run.record["decoding_curve"]), run.record["decoding"]
    display(plot_threshold(curve, chosen["threshold"]))

# %% [markdown]
# ## A look at the corrections
#
# By domain; some that were changed; and right characters that were changed with most confidence.

# %%
from kernel_lib.results.spelling_tables import domain_table, worst_over_corrections
from kernel_lib.results.spelling_view import show_corrections

if oof is not None:
    display(domain_table(oof).round(3))
    display(show_corrections(oof, count=20, only="changed"))
    display(worst_over_corrections(oof, count=10))

# %%
from kernel_lib.results.report import write_report

if run.finished_folds():
    print(write_report(run))
for path in sorted(run.folder.rglob("*")):
    if path.is_file():
        print(f"{path.stat().st_size / 1e6:10.2f} MB  {path.relative_to(run.folder)}")
