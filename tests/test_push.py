"""A push shows all and sends nothing, or sends it all: the real client, a stand-in of Kaggle."""

from __future__ import annotations

import base64
import contextlib
import copy
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kernel_lib.errors import DataError
from kernel_lib.offline.upload import push as push_module
from kernel_lib.offline.upload.kaggle_client import KaggleError, find_command
from kernel_lib.offline.upload.outgoing import write_contents
from kernel_lib.offline.upload.push import push
from kernel_lib.offline.upload.push_plan import make_plan
from tests.kaggle_server import Kaggle, KaggleServer, Refusal, unpacked_dataset

needs_client = pytest.mark.skipif(
    find_command() is None, reason="the kaggle command is not installed"
)
COMPETITION = "feedback-prize-english-language-learning"
LIBRARY = {
    "kernel_lib/__init__.py": "print('hello')\n",
    "kernel_lib/training/loop.py": "STEPS = 3\n",
    "LICENSE": "Apache-2.0\n",
}
WHEEL = "some_tool-1.0-py3-none-any.whl"


def write_dataset(build: Path, slug: str, files: dict[str, str], owner: str = "alice") -> Path:
    """A dataset folder as a build leaves it."""
    folder = build / "datasets" / slug
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    metadata = {"id": f"{owner}/{slug}", "title": slug, "licenses": [{"name": "apache-2.0"}]}
    (folder / "dataset-metadata.json").write_text(json.dumps(metadata))
    return folder


def write_kernel(build: Path, name: str, code: str, **metadata: Any) -> Path:
    """A notebook folder as a build leaves it."""
    folder, slug = build / "kernels" / name, name.replace("_", "-")
    folder.mkdir(parents=True)
    block = {
        "accelerator": "nvidiaTeslaT4",
        "isGpuEnabled": True,
        "isInternetEnabled": False,
        "language": "python",
    }
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": [code], "outputs": []}
    notebook = {
        "cells": [{**cell, "execution_count": None}],
        "metadata": {"kaggle": block, "kernelspec": kernelspec},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (folder / f"{name}.ipynb").write_text(json.dumps(notebook))
    values = {
        "id": f"alice/{slug}",
        "title": slug,
        "code_file": f"{name}.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_internet": False,
        "machine_shape": "NvidiaTeslaT4",
        "competition_sources": [COMPETITION],
        "dataset_sources": ["alice/kernel-lib"],
        **metadata,
    }
    (folder / "kernel-metadata.json").write_text(json.dumps(values))
    return folder


def write_build(build: Path) -> Path:
    """The library, a wheel, weights, and a pair of notebooks."""
    write_dataset(build, "a-weights", {"run/run.json": "{}", "run/fold0/model.safetensors": "w"})
    write_dataset(build, "kernel-lib", LIBRARY)
    write_dataset(build, "kernel-lib-wheels", {WHEEL: "wheel"})
    write_kernel(build, "fb3_infer", "'submission.csv'", kernel_sources=["alice/fb3-train"])
    write_kernel(build, "fb3_train", "'sample_submission.csv'")
    return build


@contextlib.contextmanager
def at_kaggle(home: Path, **variables: str) -> Iterator[Kaggle]:
    """A stand-in with the competition, and an environment in which the client asks only it."""
    with KaggleServer() as kaggle, pytest.MonkeyPatch.context() as patch:
        kaggle.competitions.add(COMPETITION)
        for name in list(os.environ):
            if name.startswith(("KAGGLE_", "XDG_", "VERBOSE", "HF_TOKEN", "WANDB_")):
                patch.delenv(name)
        home.mkdir(parents=True, exist_ok=True)
        login = {"KAGGLE_USERNAME": "alice", "KAGGLE_KEY": kaggle.key}
        for name, value in {**kaggle.environment(home), **(variables or login)}.items():
            patch.setenv(name, value)
        yield kaggle
        assert kaggle.outside == []


@pytest.fixture
def kaggle(tmp_path: Path) -> Iterator[Kaggle]:
    """The stand-in, signed in as alice."""
    with at_kaggle(tmp_path / "home") as stand_in:
        yield stand_in


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A build of three datasets and two notebooks."""
    return write_build(tmp_path / "build")


def files_of(folder: Path) -> dict[str, bytes]:
    """All that should reach Kaggle of a dataset's folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "dataset-metadata.json"
    }


@dataclass
class Pushed:
    """What came of a first push.

    Attributes:
        kaggle: the stand-in; later pushes change it.
        then: the same as it was after the push.
        files: by dataset, what was in the build.
    """

    kaggle: Kaggle
    then: Kaggle
    build: Path
    files: dict[str, dict[str, bytes]]
    printed: str


def send(build: Path, *only: str, **options: Any) -> str:
    """Pushes for good; returns all that was printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        push(build, go=True, only=only, poll_seconds=0, **{"ready_within_seconds": 60, **options})
    return printed.getvalue()


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushed]:
    """A first push, of all but the weights; the library is not ready at two looks at it."""
    folder = tmp_path_factory.mktemp("push")
    with at_kaggle(folder / "home") as kaggle:
        kaggle.polls["alice/kernel-lib"] = 2
        build = write_build(folder / "build")
        printed = send(build, "kernel-lib", "kernel-lib-wheels", "fb3_train", "fb3_infer")
        files = {f"alice/{path.name}": files_of(path) for path in build.glob("datasets/k*")}
        yield Pushed(kaggle, copy.deepcopy(kaggle), build, files, printed)


# What needs no client.


def test_a_dry_run_shows_every_command_and_file_and_starts_nothing(
    kaggle: Kaggle, build: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(build.parent)
    monkeypatch.setattr(subprocess, "Popen", None)
    push(build)
    out = capsys.readouterr().out
    for command in (
        "kaggle datasets create -p build/datasets/kernel-lib --dir-mode zip",
        "kaggle datasets version -p build/datasets/kernel-lib -m 'kernel_lib 0",
        "kaggle datasets status alice/kernel-lib",
        "kaggle kernels push -p build/kernels/fb3_train",
        f"kaggle competitions submit {COMPETITION} -k alice/fb3-infer -v VERSION "
        "-f submission.csv -m 'kernel_lib 0",
    ):
        assert f"  $ {command}" in out
    assert out.count("competitions submit") == 1  # the training notebook submits nothing
    assert "0.000 MB  kernel_lib.zip  (kernel_lib/, 2 files)" in out
    assert WHEEL in out and "fb3_train.ipynb" in out
    names = ("kernel-lib,", "kernel-lib-wheels,", "a-weights,", "fb3-train,", "fb3-infer,")
    places = [out.index(f"\nalice/{name}") for name in names]
    assert places == sorted(places)
    assert "nothing was sent" in out
    assert kaggle.asked == []
    assert not (build / "datasets/kernel-lib/CONTENTS.sha256").exists()


def test_of_the_notebooks_only_those_are_sent_that_are_asked_for(
    kaggle: Kaggle, build: Path, capsys: Any
) -> None:
    write_kernel(build, "csc_train", "1")
    push(build, notebooks=["fb3_train", "fb3_infer"])
    out = capsys.readouterr().out
    assert "kernels/fb3_train" in out and "csc" not in out and "a-weights" in out
    push(build, notebooks=["csc-train"])
    out = capsys.readouterr().out
    assert "kernels/csc_train" in out and "fb3" not in out and "a-weights" in out
    with pytest.raises(DataError, match="did you mean 'csc-train'"):
        push(build, notebooks=["csc_trian"])


def test_a_dataset_that_is_not_sent_is_told_with_the_notebook_that_reads_it(
    kaggle: Kaggle, build: Path, capsys: Any
) -> None:
    sources = ["alice/kernel-lib", "alice/csc-data", "alice/chinese-macbert-base/3", "bob/words"]
    write_kernel(build, "csc_train", "1", competition_sources=[], dataset_sources=sources)
    push(build, notebooks=["csc_train"])
    out = capsys.readouterr().out
    assert out.count("not built here, so it must be on Kaggle already") == 2
    assert "  reads alice/csc-data: not built here" in out
    assert "as a dataset called csc-data (www.kaggle.com/datasets/new)" in out
    assert "make dataset BACKBONE=<its folder> NAME=chinese-macbert-base" in out
    assert "reads alice/kernel-lib" not in out and "reads bob/words" not in out
    push(build, only=["csc_train"])
    library = build / "datasets/kernel-lib"
    assert f"reads alice/kernel-lib: this push does not send {library}" in capsys.readouterr().out
    assert kaggle.asked == []


def test_what_is_missing_is_told_in_a_dry_run_and_an_error_with_go(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(push_module, "find_command", lambda: None)
    with at_kaggle(tmp_path / "home", KAGGLE_USERNAME="alice"):  # a name without a key is none
        arguments = ["push", "--build", str(build)]
        monkeypatch.setattr(sys, "argv", arguments)
        assert push_module.main() == 0
        out = capsys.readouterr().out
        assert "before that: there is no `kaggle` command" in out
        assert "before that: no Kaggle credentials were found" in out
        monkeypatch.setattr(sys, "argv", [*arguments, "--go"])
        assert push_module.main() == 1
        said = capsys.readouterr()
    assert said.out == ""
    assert "no `kaggle` command" in said.err and "no Kaggle credentials" in said.err


@pytest.mark.parametrize("go", [False, True])
def test_one_wrong_value_stops_everything(kaggle: Kaggle, build: Path, go: bool) -> None:
    path = build / "kernels/fb3_train/kernel-metadata.json"
    path.write_text(path.read_text().replace('"enable_internet": false', '"enable_internet": true'))
    with pytest.raises(DataError, match=r"nothing was sent.*\n.*fb3_train.*enable_internet"):
        push(build, go=go)
    assert kaggle.asked == []


def test_a_key_in_a_notebook_stops_everything(kaggle: Kaggle, build: Path) -> None:
    path = build / "kernels/fb3_train/fb3_train.ipynb"
    path.write_text(path.read_text().replace("sample_submission", kaggle.key))
    with pytest.raises(DataError, match="KAGGLE_KEY") as error:
        push(build, go=True)
    assert kaggle.key not in str(error.value)
    assert kaggle.asked == []


@pytest.mark.parametrize("go", [False, pytest.param(True, marks=needs_client)])
def test_another_owner_than_who_is_signed_in_is_refused(
    kaggle: Kaggle, build: Path, go: bool
) -> None:
    write_dataset(build, "kernel-lib", LIBRARY, owner="bob")
    with pytest.raises(DataError, match="'bob', but 'alice' is signed in"):
        push(build, go=go)
    assert kaggle.asked == []


def test_notebooks_that_read_each_other_are_refused(build: Path) -> None:
    write_kernel(build, "fb3_blend", "1", kernel_sources=["alice/fb3-other/2"])
    write_kernel(build, "fb3_other", "1", kernel_sources=["alice/fb3-blend"])
    with pytest.raises(DataError, match="read each other's output: alice/fb3-"):
        push(build)


def test_a_notebook_that_goes_on_from_its_own_output_waits_for_nothing(build: Path) -> None:
    write_kernel(build, "fb3_long", "1", kernel_sources=["alice/fb3-long", "alice/fb3-start/2"])
    write_kernel(build, "fb3_start", "1", kernel_sources=["alice/fb3-start"])
    plan = make_plan(build, notebooks=["fb3_long", "fb3_start"])
    assert [kernel.ref for kernel in plan.kernels] == ["alice/fb3-start", "alice/fb3-long"]
    assert [kernel.ref for kernel in plan.later] == ["alice/fb3-long"]


def test_an_unknown_name_or_an_empty_build_says_what_to_do(build: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did you mean 'fb3-train'"):
        push(build, only=["fb3_tran"])
    with pytest.raises(DataError, match="Run: make dataset"):
        push(tmp_path / "nowhere")


@dataclass
class Scripted:
    """Stands in for the kaggle command: answers in turn, the last answer again and again.

    Attributes:
        statuses: of the wheels; None: refused.
        others: that are there.
        served: what Kaggle has of its list of contents; None: nothing.
        names: the files that Kaggle lists.
        done: what was sent.
    """

    statuses: list[str | None]
    others: tuple[str, ...] = ("alice/kernel-lib",)
    served: list[bytes | None] = field(default_factory=lambda: [None])
    names: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    def username(self) -> str:
        return "alice"

    def status(self, ref: str) -> tuple[str | None, str]:
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0], "    words"

    def find_dataset(self, ref: str) -> str | None:
        if ref == "alice/kernel-lib-wheels":
            return self.status(ref)[0]
        return "ready" if ref in self.others else None

    def newest_file(self, ref: str, name: str) -> bytes | None:
        return self.served.pop(0) if len(self.served) > 1 else self.served[0]

    def files(self, ref: str) -> list[str]:
        return self.names

    def send_dataset(self, arguments: list[str]) -> None:
        self.done.append(arguments[1])

    def push_kernel(self, folder: Path) -> int:
        self.done.append("push")
        return 1


def send_scripted(build: Path, scripted: Scripted, notebook: str = "fb3_train") -> Scripted:
    """Pushes the wheels and a notebook through a scripted command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(push_module, "find_command", lambda: Path("kaggle"))
        patch.setattr(push_module, "find_sign_in", lambda: "a test")
        patch.setattr(push_module, "KaggleCommand", lambda command: scripted)
        send(build, "kernel-lib-wheels", notebook, ready_within_seconds=0.5)
    return scripted


def test_an_own_dataset_that_is_nowhere_stops_everything_before_anything_is_sent(
    build: Path,
) -> None:
    write_kernel(build, "csc_train", "1", dataset_sources=["alice/kernel-lib", "alice/csc-data"])
    bare = Scripted(["ready"], others=())
    with pytest.raises(KaggleError, match="alice/fb3-train reads alice/kernel-lib") as error:
        send_scripted(build, bare)
    assert f"send {build / 'datasets/kernel-lib'} too" in str(error.value)
    library = Scripted(["ready"])
    with pytest.raises(KaggleError, match="reads alice/csc-data, which is not on Kaggle: upload"):
        send_scripted(build, library, "csc_train")
    assert bare.done == library.done == []
    both = Scripted(["ready"], others=("alice/kernel-lib", "alice/csc-data"))
    assert send_scripted(build, both, "csc_train").done == ["version", "push"]


def test_a_dataset_that_never_gets_ready_ends_the_wait(build: Path) -> None:
    scripted = Scripted([None, None, "blobs_received"])
    with pytest.raises(KaggleError, match=r"^waiting for Kaggle .*wheels is not ready after"):
        send_scripted(build, scripted)
    assert scripted.done == ["create"]


def test_a_dataset_that_kaggle_cannot_unpack_ends_the_wait(build: Path) -> None:
    scripted = Scripted([None, "blobs_received", "failed"])
    with pytest.raises(KaggleError, match=r"could not unpack alice/kernel-lib-wheels.* failed"):
        send_scripted(build, scripted)
    assert scripted.done == ["create"]
    assert send_scripted(build, Scripted(["failed", "ready"])).done == ["version", "push"]


def test_a_version_is_waited_for_though_the_one_before_is_ready(build: Path) -> None:
    new = write_contents(build / "datasets/kernel-lib-wheels")
    served: list[bytes | None] = [b"old", b"old", b"old", new, b"too far"]
    older = Scripted(["ready"], served=served, names=["CONTENTS.sha256"])
    assert send_scripted(build, older).done == ["version", "push"]
    assert older.served == [b"too far"]
    served = [None, None, None, new, b"too far"]
    without = Scripted(["ready"], served=served, names=["old.txt"])
    assert send_scripted(build, without).done == ["version", "push"]
    assert without.served == [b"too far"]


def test_files_that_cannot_be_looked_at_do_not_hold_up_a_push(build: Path) -> None:
    assert send_scripted(build, Scripted(["ready"])).done == ["version", "push"]


def test_a_dataset_that_is_still_unpacked_is_waited_for_before_its_next_version(
    build: Path,
) -> None:
    new = write_contents(build / "datasets/kernel-lib-wheels")
    names = [WHEEL, "CONTENTS.sha256"]
    scripted = Scripted(["blobs_received", None, "ready"], served=[new], names=names)
    assert send_scripted(build, scripted).done == ["push"]  # it is the same already
    assert scripted.statuses == ["ready"]


# What goes out, as Kaggle would see it.


@needs_client
def test_datasets_arrive_whole_and_private(pushed: Pushed) -> None:
    datasets = pushed.then.datasets
    assert {ref: dataset.versions for ref, dataset in datasets.items()} == {
        ref: [files] for ref, files in pushed.files.items()
    }
    assert all(dataset.request["isPrivate"] is True for dataset in datasets.values())
    library = datasets["alice/kernel-lib"].versions[0]
    assert library.keys() == {*LIBRARY, "CONTENTS.sha256"}
    assert "kernel_lib.zip" in {name for name, _ in pushed.then.blobs.values()}


@needs_client
def test_a_notebook_goes_out_as_its_metadata_says_after_the_datasets_are_ready(
    pushed: Pushed,
) -> None:
    (request,) = pushed.then.kernels["alice/fb3-train"]
    assert request["enableInternet"] is False and request["isPrivate"] is True
    assert request["enableGpu"] is True and request["machineShape"] == "NvidiaTeslaT4"
    assert request["datasetDataSources"] == ["alice/kernel-lib"]
    assert request["competitionDataSources"] == [COMPETITION]
    assert json.loads(request["text"])["cells"][0]["source"] == "'sample_submission.csv'"
    asked = pushed.then.asked
    assert asked.count("SaveKernel") == 1 and asked[-1] == "SaveKernel"
    assert pushed.then.datasets["alice/kernel-lib"].polls_left < 0
    assert "alice/fb3-train runs as version 1" in pushed.printed


@needs_client
def test_a_notebook_that_reads_a_running_one_waits_for_its_turn(pushed: Pushed) -> None:
    assert "alice/fb3-infer" not in pushed.then.kernels
    assert "alice/fb3-infer was not pushed: it reads the output of alice/fb3-train" in (
        pushed.printed
    )
    printed = send(pushed.build, "fb3-infer")
    (request,) = pushed.kaggle.kernels["alice/fb3-infer"]
    assert request["kernelDataSources"] == ["alice/fb3-train"]
    assert (
        f"$ kaggle competitions submit {COMPETITION} -k alice/fb3-infer -v 1 -f submission.csv -m "
    ) in printed
    assert "$ kaggle kernels logs alice/fb3-infer --follow" in printed


@needs_client
def test_the_key_is_in_nothing_printed_and_nothing_sent(pushed: Pushed) -> None:
    key = pushed.kaggle.key
    pair = base64.b64encode(f"alice:{key}".encode()).decode()
    for secret in (key, pair):
        assert secret not in pushed.printed
        assert not any(secret.encode() in body for body in pushed.kaggle.bodies)


@needs_client
def test_only_what_changed_is_sent_again(pushed: Pushed) -> None:
    (pushed.build / "datasets/kernel-lib/kernel_lib/training/loop.py").write_text("STEPS = 4\n")
    printed = send(pushed.build, "kernel-lib", "kernel_lib_wheels", message="four steps")
    library = pushed.kaggle.datasets["alice/kernel-lib"]
    assert library.notes == ["", "four steps"]
    assert library.versions[1]["kernel_lib/training/loop.py"] == b"STEPS = 4\n"
    assert len(pushed.kaggle.datasets["alice/kernel-lib-wheels"].versions) == 1
    assert printed.count("same files already") == 1


# What goes wrong.


@needs_client
def test_a_client_that_prints_its_requests_shows_no_key(
    kaggle: Kaggle, build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kaggle.datasets["alice/kernel-lib"] = unpacked_dataset()
    monkeypatch.setenv("VERBOSE", "1")
    printed = send(build, "fb3_train")
    assert "Authorization: Basic ***" in printed
    assert kaggle.key not in printed


@needs_client
def test_a_source_that_does_not_exist_is_a_failure(kaggle: Kaggle, build: Path) -> None:
    kaggle.competitions.clear()
    write_kernel(build, "fb3_blend", "1", dataset_sources=["bob/words"])
    with pytest.raises(KaggleError) as error:
        send(build, "fb3_blend")
    assert "version 1 was pushed without some of its sources" in str(error.value)
    assert "dataset sources and could not be added to the kernel: ['bob/words']" in str(error.value)
    assert f"['{COMPETITION}']" in str(error.value)


@needs_client
def test_a_refusal_midway_says_which_step_kaggles_words_and_what_was_sent(
    kaggle: Kaggle, build: Path
) -> None:
    kaggle.datasets["alice/kernel-lib"] = unpacked_dataset()
    kaggle.faults["CreateDataset"] = [Refusal(403, "Permission 'datasets.create' was denied")]
    with pytest.raises(KaggleError) as error:
        send(build, "kernel-lib", "kernel-lib-wheels", "fb3_train")
    message = str(error.value)
    assert message.startswith("dataset alice/kernel-lib-wheels: `kaggle datasets create -p ")
    assert "    Permission 'datasets.create' was denied" in message
    assert "Sent before that: alice/kernel-lib. " in message and "is safe" in message
    assert "SaveKernel" not in kaggle.asked


@needs_client
def test_a_file_that_the_server_drops_is_a_failure_and_the_next_push_sends_it(
    kaggle: Kaggle, build: Path
) -> None:
    folder = build / "datasets/kernel-lib-wheels"
    kaggle.drop = WHEEL
    with pytest.raises(KaggleError, match=f"made a version without {WHEEL}"):
        send(build, "kernel-lib-wheels")
    # What the client made of it: a dataset whose own list names a file that is not there.
    broken = kaggle.datasets["alice/kernel-lib-wheels"]
    assert set(broken.versions[0]) == {"CONTENTS.sha256"}
    kaggle.drop = None
    send(build, "kernel-lib-wheels")
    assert broken.versions[1][WHEEL] == (folder / WHEEL).read_bytes()


@needs_client
def test_a_server_in_trouble_is_not_taken_for_a_new_dataset(kaggle: Kaggle, build: Path) -> None:
    trouble = Refusal(500, "Internal error")
    kaggle.faults = {"GetDatasetStatus": [trouble], "ListDatasets": [trouble]}
    with pytest.raises(KaggleError, match="cannot tell whether the dataset alice/kernel-lib"):
        send(build, "kernel-lib-wheels")
    assert kaggle.datasets == {} and kaggle.blobs == {}


@needs_client
def test_a_dataset_that_only_the_list_knows_is_not_created(kaggle: Kaggle, build: Path) -> None:
    refs = [f"alice/dataset-{number}" for number in range(5)]  # on the list's first page
    kaggle.datasets = {ref: unpacked_dataset() for ref in [*refs, "alice/kernel-lib-wheels"]}
    kaggle.faults["GetDatasetStatus"] = [Refusal(500, "Internal error")]
    kaggle.faults["CreateDatasetVersion"] = [Refusal(403, "enough for this test")]
    with pytest.raises(KaggleError, match="`kaggle datasets version"):
        send(build, "kernel-lib-wheels")


@needs_client
@pytest.mark.parametrize("token", ["token-of-", "some-other-token-"])
def test_a_token_is_asked_whose_it_is(build: Path, tmp_path: Path, token: str) -> None:
    token += Kaggle.key
    with at_kaggle(tmp_path / "home", KAGGLE_API_TOKEN=token) as kaggle:
        kaggle.user = "bob"
        expected = "'alice', but 'bob'" if token.startswith("token") else "cannot sign in"
        with pytest.raises((DataError, KaggleError), match=expected) as error:
            push(build, go=True)
        assert set(kaggle.asked) == {"IntrospectToken"}
    assert Kaggle.key not in str(error.value)
