"""What a user sees of an error: in a notebook the message and the place, nothing else."""

from __future__ import annotations

import inspect
import runpy

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from kernel_lib import errors
from kernel_lib.errors import BackboneError, DataError, KernelLibError

USER_ERRORS = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, Exception) and cls is not KernelLibError
]


@pytest.fixture
def shell(tmp_path, monkeypatch) -> InteractiveShell:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    return InteractiveShell(config=config)


def test_a_notebook_shows_message_and_place_without_frames(shell, tmp_path, capsys) -> None:
    library = tmp_path / "deep.py"
    library.write_text(
        "from kernel_lib.errors import DataError\n"
        "def inner():\n    raise DataError('train.csv has no column. Add it.')\n"
        "def outer():\n    inner()\n"
    )
    shell.push(runpy.run_path(str(library)))
    result = shell.run_cell("outer()")
    shown = "".join(capsys.readouterr())
    assert isinstance(result.error_in_exec, DataError)
    assert "DataError: train.csv has no column. Add it." in shown
    assert f"{library}:3" in shown
    assert "Traceback" not in shown and "outer" not in shown and "inner()" not in shown
    assert len(shown.strip().splitlines()) == 2


def test_a_notebook_does_not_show_the_cause_that_the_message_already_tells(shell, capsys) -> None:
    shell.push({"BackboneError": BackboneError})
    shell.run_cell(
        "try:\n    {}['layer']\nexcept KeyError as error:\n"
        "    raise BackboneError('weights are damaged. Copy them again.') from error"
    )
    shown = "".join(capsys.readouterr())
    assert "BackboneError: weights are damaged. Copy them again." in shown
    assert "KeyError" not in shown


def test_an_error_never_raised_can_be_rendered_too() -> None:
    assert DataError("nothing there")._render_traceback_()[0] == "DataError: nothing there"


@pytest.mark.parametrize("cls", USER_ERRORS)
def test_every_error_of_the_kit_can_be_caught_as_one(cls) -> None:
    with pytest.raises(KernelLibError, match="what, where, cure"):
        raise cls("what, where, cure")
