"""Which notebooks' outputs the rehearsed ones read: the templates', or what was rehearsed instead.

A template names the notebook that most people push. Who rehearses another one before inference
(frozen features, or both for a blend) sees its output all the same, and is told what to add to the
template: Kaggle attaches what is declared, and refuses a notebook that does not exist.
"""

from __future__ import annotations

from collections.abc import Sequence

from kernel_lib.offline.rehearsal.plan import Kernel
from kernel_lib.offline.rehearsal.stage import declared, has_template
from kernel_lib.offline.upload.kernel_rules import METADATA
from kernel_lib.offline.upload.metadata import check_kernel
from kernel_lib.runtime.files import write_json

FEATURES = "_features"  # end of the names of notebooks whose runs need their encoders again


def declare_outputs(kernels: Sequence[Kernel]) -> list[str]:
    """Makes the built metadata of each notebook that predicts fit those rehearsed before it.

    Args:
        kernels: in the order of the rehearsal, built; their templates stay as they are.

    Returns:
        A note for each thing that the templates have otherwise.
    """
    if any(check_kernel(kernel.folder) for kernel in kernels):
        return []  # the rehearsal says what is wrong with them
    notes = []
    for at, kernel in enumerate(kernels):
        trained = [each for each in kernels[:at] if not each.predicts]
        if not kernel.predicts or not trained:
            continue
        here = {str(each.metadata["id"]): each for each in trained}
        values = kernel.metadata
        named = [name for kind, name in declared(values) if kind == "notebook"]
        added = {name: each for name, each in here.items() if name not in named}
        skipped = [name for name in named if name not in here]
        encoders = [name for each in added.values() for name in _encoders(each)]
        encoders = [
            name for name in dict.fromkeys(encoders) if ("dataset", name) not in declared(values)
        ]
        values["kernel_sources"] = [*(name for name in named if name in here), *added]
        values["dataset_sources"] = [*values.get("dataset_sources", []), *encoders]
        write_json(kernel.folder / METADATA, values)
        template = f"datasets_meta/{kernel.folder.name}.kernel.json"
        if skipped:
            notes.append(
                f"{kernel.slug} was not shown {', '.join(skipped)}, which was not rehearsed. A "
                "push fails if there is no such notebook: take it out of kernel_sources in "
                f"{template} unless it is there"
            )
        if added:
            more = f" and {_for_template(encoders)} to dataset_sources" if encoders else ""
            notes.append(
                f"BEFORE A PUSH add {_for_template(added)} to kernel_sources{more} in {template}: "
                f"{kernel.slug} was shown what it does not declare yet"
            )
    return notes


def _encoders(kernel: Kernel) -> list[str]:
    """The datasets that predicting with a notebook's runs needs, beside its output."""
    if not kernel.folder.name.endswith(FEATURES):
        return []
    datasets = [name for kind, name in declared(kernel.metadata) if kind == "dataset"]
    return [name for name in datasets if not has_template(name.rpartition("/")[2])]


def _for_template(names: Sequence[str] | dict[str, Kernel]) -> str:
    return ", ".join(f'"OWNER/{name.rpartition("/")[2]}"' for name in names)
