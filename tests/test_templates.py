"""Templates are filled in whole or refused; the owner is found where the kaggle command looks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kernel_lib.errors import ArtifactError, DataError, SettingsError
from kernel_lib.offline.upload import account, templates
from kernel_lib.offline.upload.account import OWNER_UNKNOWN, choose_owner, find_owner, known_secrets
from kernel_lib.offline.upload.templates import (
    DATASET,
    dataset_slug,
    kernel_names,
    placeholders,
    render,
    slugify,
    template_names,
)
from tests.conftest import ROOT

SECRET = "0123456789abcdef0123456789abcdef"
VARIABLES = (*account.SECRET_VARIABLES, "KAGGLE_USERNAME", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without any account."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of datasets_meta/."""
    monkeypatch.setattr(templates, "TEMPLATES", tmp_path / "meta")
    (tmp_path / "meta").mkdir()
    return tmp_path / "meta"


def log_in(folder: Path, name: str = "kaggle.json", **values: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(values))


def test_every_notebook_has_a_template_and_every_template_a_notebook() -> None:
    assert kernel_names() == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert "fb3_train" in kernel_names()


def test_the_owner_is_filled_in_wherever_it_stands() -> None:
    values = render("fb3_infer.kernel", owner="somebody")
    assert values["id"] == "somebody/fb3-infer"
    assert values["dataset_sources"] == ["somebody/kernel-lib"]
    assert values["kernel_sources"] == ["somebody/fb3-train"]
    assert values["enable_internet"] is False
    values = render("csc_train.kernel", owner="somebody")
    assert values["dataset_sources"] == [
        *("somebody/kernel-lib", "somebody/csc-data", "somebody/chinese-macbert-base")
    ]
    assert values["competition_sources"] == []
    for name in template_names(DATASET):
        fields = {word.lower(): "filled-in" for word in placeholders(name) - {"OWNER"}}
        text = json.dumps(render(name, owner="somebody", **fields))
        assert "OWNER" not in text and "SLUG" not in text and "TITLE" not in text


def test_a_backbone_gets_its_slug_and_title() -> None:
    values = render("backbone.dataset", owner="me", slug="deberta-v3-base", title="DeBERTa v3 base")
    assert (values["id"], values["title"]) == ("me/deberta-v3-base", "DeBERTa v3 base")


def test_what_is_filled_in_is_not_filled_in_again(folder: Path) -> None:
    (folder / "a.dataset.json").write_text('{"title": "TITLE", "id": "OWNER/SLUG", "n": [1, null]}')
    values = render("a.dataset", owner="me", slug="OWNER", title="the OWNER's SLUG")
    assert values == {"title": "the OWNER's SLUG", "id": "me/OWNER", "n": [1, None]}


@pytest.mark.parametrize(
    ("name", "fields", "error", "words"),
    [
        ("backbone.dataset", {"slug": "a-slug"}, SettingsError, "nothing was given for TITLE"),
        ("fb3_train.kernel", {"slug": "a-slug"}, SettingsError, "has no place for SLUG"),
        ("fb3_trian.kernel", {}, DataError, r"did you mean 'fb3_train\.kernel'"),
        ("fb3_train.kernel", {"owner": "my name"}, SettingsError, "is no Kaggle user name"),
        ("fb3_train.kernel", {"owner": "me/fb3"}, SettingsError, "is no Kaggle user name"),
    ],
)
def test_what_cannot_be_filled_in_is_refused(name: str, fields: dict, error, words: str) -> None:
    with pytest.raises(error, match=words):
        render(name, **{"owner": "me", **fields})


def test_a_template_that_is_no_object_is_refused(folder: Path) -> None:
    (folder / "a.dataset.json").write_text("[]")
    with pytest.raises(DataError, match="not a JSON object"):
        render("a.dataset", owner="me")
    (folder / "a.dataset.json").write_text("{")
    with pytest.raises(ArtifactError, match="not JSON"):
        render("a.dataset", owner="me")


@pytest.mark.parametrize(
    ("title", "slug"),
    [
        ("fb3-train", "fb3-train"),
        ("fb3_train", "fb3-train"),
        ("  FB3: train, 1st! ", "fb3-train-1st"),
        ("10,000 essays -- don't", "10000-essays-don-t"),
        ("Débérta ﬁne", "deberta-fine"),
        ("R&amp;D", "r-d"),
        ("纠错", ""),
    ],
)
def test_a_title_becomes_a_slug_as_kaggle_makes_it(title: str, slug: str) -> None:
    assert slugify(title) == slug


def test_a_dataset_that_kaggle_would_not_take_by_its_name_is_refused() -> None:
    assert dataset_slug("DeBERTa_v3 base") == "deberta-v3-base"
    assert dataset_slug("a" * 50) == "a" * 50 and dataset_slug("a" * 6) == "a" * 6
    for name in ("model", "a" * 51, "纠错纠错纠错纠错", "(((model)))"):
        with pytest.raises(SettingsError, match=r"6 to 50 characters\. Add NAME="):
            dataset_slug(name)


def test_without_an_account_a_stand_in_goes_on_and_one_line_says_how_to_set_it(capsys) -> None:
    assert find_owner() is None
    assert choose_owner() == OWNER_UNKNOWN
    (line,) = capsys.readouterr().out.splitlines()
    assert "OWNER=" in line and "~/.kaggle/kaggle.json" in line
    assert render("fb3_train.kernel", owner=OWNER_UNKNOWN)["id"] == f"{OWNER_UNKNOWN}/fb3-train"


def test_the_owner_comes_from_the_first_place_that_says_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    log_in(home / ".kaggle", "credentials.json", username="oauth", refresh_token=SECRET)
    assert find_owner() == "oauth"
    log_in(home / ".config/kaggle", username="xdg", key=SECRET)
    assert find_owner() == "xdg"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "other"))
    log_in(home / "other/kaggle", username="other", key=SECRET)
    assert find_owner() == "other"
    log_in(home / ".kaggle", username="home", key=SECRET)
    assert find_owner() == "home"
    log_in(home / "elsewhere", username="elsewhere", key=SECRET)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(home / "elsewhere"))
    assert find_owner() == "elsewhere"
    monkeypatch.setenv("KAGGLE_USERNAME", "variable")
    assert find_owner() == "variable"
    assert choose_owner() == "variable" and choose_owner("given") == "given"
    assert capsys.readouterr() == ("", "")
    with pytest.raises(SettingsError, match="is no Kaggle user name"):
        choose_owner("not a name")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"username": 5}', '{"key": "only"}'])
def test_a_login_file_without_a_name_is_passed_over(home: Path, content: str) -> None:
    (home / ".kaggle").mkdir(parents=True)
    (home / ".kaggle/kaggle.json").write_text(content)
    (home / ".kaggle/access_token").write_text(SECRET)
    assert find_owner() is None


def test_all_of_the_users_keys_are_known_by_their_place(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert known_secrets() == {}
    for number, name in enumerate(account.SECRET_VARIABLES):
        monkeypatch.setenv(name, f" {number}{SECRET}\n")
    log_in(home / ".kaggle", username="somebody", key=f"k{SECRET}")
    log_in(home / ".kaggle", "credentials.json", refresh_token=f"r{SECRET}", username="somebody")
    (home / ".kaggle/access_token").write_text(f"a{SECRET}\n")
    found = known_secrets()
    assert sorted(found.values()) == sorted(f"{first}{SECRET}" for first in "01234kra")
    assert set(account.SECRET_VARIABLES) < set(found)
    (tmp_path / "token").write_text(f"f{SECRET}")
    monkeypatch.setenv("KAGGLE_API_TOKEN", str(tmp_path / "token"))  # the client takes a path too
    assert known_secrets()["KAGGLE_API_TOKEN"] == f"f{SECRET}"


def test_a_value_too_short_for_a_key_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "none")
    assert known_secrets() == {}
