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
# # Named entities: train
#
# K-fold fine-tuning of any encoder that names entities in words; all weights, or LoRA.
#
# - **Reads** words and tags (`train.csv`, JSON lines, CoNLL columns), a backbone folder, and the
#   `kernel_lib` dataset.
# - **Writes** the run folder `run/`: fold weights, out-of-fold tags, `report.html`.
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
# `kernel_lib/tasks/entity_settings.py`; inference reads them back from the run folder.

# %% tags=["parameters"]
from kernel_lib.tasks.entities import EntityTask
from kernel_lib.tasks.entity_settings import EntitySettings

settings = EntitySettings(
    backbone="deberta-v3-base",  # a folder name under the inputs, or a path
    train_files=("train.csv",),  # in the data folder
    n_folds=4,
    epochs=5,
    batch_size=16,
    max_length=512,  # longer texts are read in windows that overlap
    learning_rate=5e-5,  # with LoRA ten times as high
    lora_rank=0,  # 0: all weights are trained
    subtoken="first",  # or "last", "mean": which piece stands for its word
    decoder="viterbi",  # or "argmax", "crf"
    time_budget_seconds=8.5 * 3600,  # for a submission's 9 hours; a mere training session has 12
    debug=False,  # True: 200 rows, 2 folds, 1 epoch
).overridden()  # by the environment variable KERNEL_LIB_SETTINGS, if it is set

# %% [markdown]
# ## Texts and folds

# %%
from kernel_lib.results.entities import count_entities
from kernel_lib.runtime.clock import Clock

clock = Clock(settings.time_budget_seconds)
task = EntityTask(settings)
train = task.read_train()
count_entities(train)

# %%
folds = task.folds(train)
train["tokens"].map(len).groupby(folds).agg(["size", "sum", "max"])

# %% [markdown]
# ## Words and tokens
#
# A word may have several tokens or none; each token knows its word, so that nothing can shift.

# %%
from kernel_lib.model.location import find_backbone
from kernel_lib.results.plots import plot_token_lengths
from kernel_lib.text.batches import by_window
from kernel_lib.text.tokenizer import build_tokenizer

tokenizer = build_tokenizer(find_backbone(settings.backbone), keep_newlines=settings.keep_newlines)
examples = task.encode(train, tokenizer)
print(tokenizer.convert_ids_to_tokens(examples[0].input_ids[:40]))
print("part of word", examples[0].words[:40].tolist())
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
# Of whole texts, all out-of-fold ones together: an entity counts when its type and both ends are
# right. The same tags score differently by other definitions, so each is named.

# %%
print(score_line(run))
score_table(run)

# %%
from kernel_lib.results.entities import bias_text, read_tagged_oof, scores_text
from kernel_lib.results.entity_view import show_entities

oof = read_tagged_oof(run) if run.finished_folds() else None
if oof is not None:
    print(scores_text(oof))
    print(bias_text(run))
    display(show_entities(oof, count=20, only="wrong"))

# %%
from kernel_lib.results.report import write_report

if run.finished_folds():
    print(write_report(run))
for path in sorted(run.folder.rglob("*")):
    if path.is_file():
        print(f"{path.stat().st_size / 1e6:10.2f} MB  {path.relative_to(run.folder)}")
