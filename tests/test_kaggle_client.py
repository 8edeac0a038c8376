"""The kaggle command's words are read right, whatever its exit status; its secrets never shown."""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from kernel_lib.offline.upload.kaggle_client import (
    KaggleCommand,
    KaggleError,
    create_arguments,
    find_command,
    find_sign_in,
)

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without any log-in."""
    for name in list(os.environ):
        if name.startswith(("KAGGLE_", "XDG_", "HF_TOKEN", "HUGGING_FACE_", "WANDB_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def says(tmp_path: Path) -> Any:
    """Makes a command that runs some lines of Python in place of the real one."""

    def make(*lines: str) -> KaggleCommand:
        path = tmp_path / "kaggle"
        path.write_text("\n".join([f"#!{sys.executable}", "import sys, time", *lines]) + "\n")
        path.chmod(0o755)
        return KaggleCommand(path)

    return make


@pytest.mark.parametrize(
    ("variables", "file", "content", "source"),
    [
        ({}, None, "", None),
        ({"KAGGLE_USERNAME": "alice"}, None, "", None),
        ({"KAGGLE_KEY": KEY}, None, "", None),
        ({"HF_TOKEN": KEY}, None, "", None),
        ({"KAGGLE_USERNAME": "alice", "KAGGLE_KEY": KEY}, None, "", "KAGGLE_KEY"),
        ({"KAGGLE_API_TOKEN": KEY}, None, "", "KAGGLE_API_TOKEN"),
        ({}, ".kaggle/access_token", KEY, "access_token"),
        ({}, ".kaggle/kaggle.json", f'{{"username": "alice", "key": "{KEY}"}}', "kaggle.json"),
        ({}, ".config/kaggle/kaggle.json", f'{{"key": "{KEY}"}}', None),
        ({}, ".kaggle/credentials.json", f'{{"refresh_token": "{KEY}"}}', "credentials.json"),
    ],
)
def test_credentials_are_found_where_the_client_finds_them(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    file: str | None,
    content: str,
    source: str | None,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if file:
        (home / file).parent.mkdir(parents=True)
        (home / file).write_text(content)
    found = find_sign_in()
    assert found is None if source is None else found is not None and found.endswith(source)


def test_the_command_on_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_command() is None
    (tmp_path / "kaggle").write_text("")
    (tmp_path / "kaggle").chmod(0o755)
    assert find_command() == tmp_path / "kaggle"


def test_a_secret_is_masked_on_both_streams_even_when_it_comes_in_pieces(
    says: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", "alice")
    monkeypatch.setenv("KAGGLE_KEY", KEY)
    pair = base64.b64encode(f"alice:{KEY}".encode()).decode()
    command = says(
        f"print('key ' + {KEY[:10]!r}, end='', flush=True); time.sleep(0.1)",
        f"print({KEY[10:]!r})",
        f"print('Authorization: Basic {pair}', file=sys.stderr)",
        f"print('last {KEY}', end='')",
        "sys.exit(1)",
    )
    with pytest.raises(KaggleError) as error:
        command.send_dataset(create_arguments(home))
    shown = capsys.readouterr().out
    for text in (shown, str(error.value)):
        assert "key ***\n" in text and "Authorization: Basic ***\n" in text and "last ***" in text
        assert KEY not in text and pair not in text and KEY[:10] not in text


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["Dataset creation error: The title is already in use"], "already in use"),
        (["Skipping folder: kernel_lib; use '--dir-mode'", "SENT"], "version without kernel_lib"),
        (["Upload unsuccessful: a.whl", "Upload unsuccessful: b c.txt", "SENT"], "a.whl, b c.txt"),
        (["Upload unsuccessful: a.whl"], "did not send a.whl"),
        ([], "(nothing)"),
    ],
)
def test_a_dataset_that_is_not_sent_whole_is_an_error_though_the_status_is_0(
    says: Any, home: Path, lines: list[str], message: str
) -> None:
    sent = "Your private Dataset is being created. Please check progress at http://localhost/d"
    command = says(*(f"print({line.replace('SENT', sent)!r})" for line in lines))
    with pytest.raises(KaggleError) as error:
        command.send_dataset(create_arguments(home))
    assert message in str(error.value)


def test_a_kernel_that_is_refused_is_an_error_though_the_status_is_0(says: Any, home: Path) -> None:
    with pytest.raises(KaggleError, match=r"kernels push -p .*\n    Kernel push error: no quota"):
        says("print('Kernel push error: no quota left')").push_kernel(home)


def test_the_version_is_read_whatever_else_is_said(says: Any, home: Path) -> None:
    command = says(
        "print('Warning: Looks like you are using an outdated version')",
        "print('The following are not valid tags and could not be added: nlp')",
        "print('Kernel version 12 successfully pushed.  Please check progress at http://localhost')",
    )
    assert command.push_kernel(home) == 12


def test_bars_are_no_words_and_lines_of_either_ending_are(says: Any, home: Path) -> None:
    command = says(
        r"sys.stderr.write('\r  0%|      | 0/4\r100%|######| 4/4\n')",
        r"sys.stdout.write('refused\r\n'); sys.stdout.flush()",
        "sys.exit(1)",
    )
    with pytest.raises(KaggleError) as error:
        command.send_dataset(create_arguments(home))
    assert str(error.value).endswith("kaggle says:\n    refused")


def test_a_broken_command_is_told_before_anything_is_sent(says: Any) -> None:
    with pytest.raises(KaggleError, match=r"does not work, or cannot sign in with None.*\n.*six"):
        says("raise SystemExit('No module named six')").username()
    assert says("print('- username: None')").username() is None
    assert says("print('- username: alice')").username() == "alice"
