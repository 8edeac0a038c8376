"""Sentences and confusion sets from files: what is read, what is refused, what is warned of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from kernel_lib.errors import ArtifactError, DataError
from kernel_lib.tasks.spelling import SpellingTask
from kernel_lib.tasks.spelling_data import restore_confusion
from kernel_lib.tasks.spelling_settings import SpellingInferenceSettings, SpellingSettings
from kernel_lib.text.confusion import ConfusionSet


@pytest.fixture
def data(spelling_material, tmp_path: Path) -> Path:
    """A copy of the made-up sentences that a test may spoil."""
    return Path(shutil.copytree(spelling_material.competition, tmp_path / "data"))


def task(data: Path, **changes) -> SpellingTask:
    return SpellingTask(SpellingSettings(data_dir=str(data), **changes))


def spoil(path: Path, change) -> None:
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    change(frame).to_csv(path, index=False)


def test_all_sentences_are_read_as_they_stand_there(data: Path) -> None:
    expected = pd.read_csv(data / "train.csv", dtype=str, keep_default_na=False)
    frame = task(data).read_train()
    assert frame.equals(expected[["id", "source", "target", "domain"]]) and len(frame) == 48


def test_several_files_keep_their_ids_apart_and_lend_their_names(data: Path) -> None:
    lines = [{"id": 7, "source": "我再家", "target": "我在家"}]
    lines = [json.dumps({**line, "id": str(line["id"])}) for line in lines]
    (data / "more.jsonl").write_text("\n".join(lines))
    (data / "sub").mkdir()
    (data / "sub/train.tsv").write_text("7\t他再家\t他在家\n")
    files = ("train.csv", "more.jsonl", "sub/train.tsv")
    frame = task(data, train_files=files).read_train()
    assert frame["id"].is_unique and len(frame) == 50
    assert frame["id"].tolist()[-2:] == ["more/7", "sub/train.tsv/7"]
    assert frame["domain"].tolist()[-2:] == ["more", "sub/train.tsv"]
    assert frame["id"][0].startswith("train.csv/")


def test_columns_may_have_other_names(data: Path) -> None:
    names = {"id": "nr", "source": "wrong", "target": "right", "domain": "kind"}
    expected = task(data).read_train()
    spoil(data / "train.csv", lambda f: f.rename(columns=names))
    changes = {f"{ours}_column": theirs for ours, theirs in names.items()}
    assert task(data, **changes).read_train().equals(expected)


def test_folds_keep_a_target_or_what_else_is_named_together(data: Path) -> None:
    spoil(data / "train.csv", lambda f: f.assign(target=f["source"], book=list("abcd" * 12)))
    spoil(data / "train.csv", lambda f: pd.concat([f, f.assign(id="x" + f["id"])]))
    for column, groups in (("target", 48), ("book", 4)):
        one = task(data, group_column=column)
        frame = one.read_train()
        folds = pd.Series(one.folds(frame))
        assert len(frame) == 96 and frame[column].nunique() == groups
        assert (folds.groupby(frame[column]).nunique() == 1).all()
        assert set(folds) == {0, 1, 2, 3}
    with pytest.raises(DataError, match=r"train\.csv has no column 'author', the group_column"):
        task(data, group_column="author").read_train()
    task(data, group_column="author", fold_scheme="plain").read_train()


def test_other_schemes_see_which_sentences_have_errors(data: Path) -> None:
    one = task(data, fold_scheme="stratified", n_folds=2)
    frame = one.read_train()
    errors = (frame["source"] != frame["target"]).groupby(one.folds(frame)).sum()
    assert abs(errors[0] - errors[1]) <= 1 and errors.sum() > 10


def test_max_rows_draws_the_same_rows_each_time(data: Path) -> None:
    one, two = (task(data, max_rows=10).read_train() for _ in range(2))
    assert one.equals(two) and one.index.tolist() == list(range(10))
    assert one["id"].tolist() != task(data).read_train()["id"].tolist()[:10]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="target"), "no column 'target'"),
        (lambda f: pd.concat([f, f[:1]]), "more than once"),
        (lambda f: f.assign(target=f["target"] + "。"), "differ in length in 48 rows"),
        (lambda f: f[:0], "no rows"),
    ],
)
def test_spoiled_training_data_is_refused(data: Path, change, message: str) -> None:
    spoil(data / "train.csv", change)
    with pytest.raises(DataError, match=message):
        task(data).read_train()


def test_a_file_in_gbk_is_refused_in_training_and_inference(data: Path) -> None:
    for name in ("train.csv", "test.csv"):
        text = (data / name).read_text(encoding="utf-8")
        (data / name).write_bytes(text.encode("gb18030"))
    with pytest.raises(DataError, match=r"train\.csv is not UTF-8.*line 2.*GBK"):
        task(data).read_train()
    with pytest.raises(DataError, match=r"test\.csv is not UTF-8"):
        task(data).read_test(SpellingInferenceSettings(data_dir=str(data)))


def test_half_a_surrogate_is_refused(data: Path) -> None:
    row = {"id": "a", "source": "我\ud800在", "target": "我\ud800在"}
    for name in ("train.jsonl", "test.jsonl"):
        (data / name).write_text(json.dumps(row), encoding="utf-8")
    (data / "test.csv").unlink()
    with pytest.raises(DataError, match=r"half of a surrogate pair.*U\+D800"):
        task(data, train_files=("train.jsonl",)).read_train()
    with pytest.raises(DataError, match=r"half of a surrogate pair"):
        task(data).read_test(SpellingInferenceSettings(data_dir=str(data)))


def test_traditional_text_is_warned_of_once_a_column(data: Path) -> None:
    text = "這個們來說時會學國對過還沒為開關東車馬"
    traditional = [
        (name, frame)
        for name, frame in (
            ("train.csv", pd.DataFrame({"id": ["a"], "source": [text], "target": [text]})),
            ("test.csv", pd.DataFrame({"id": ["a"], "source": [text]})),
        )
    ]
    for name, frame in traditional:
        frame.to_csv(data / name, index=False)
    with pytest.warns(UserWarning, match="looks like traditional Chinese") as seen:
        task(data).read_train()
    assert len(seen) == 2
    with pytest.warns(UserWarning, match=r"test\.csv, source looks like traditional"):
        task(data).read_test(SpellingInferenceSettings(data_dir=str(data)))


def test_the_test_file_is_found_by_its_name_or_named(data: Path) -> None:
    settings = SpellingInferenceSettings(data_dir=str(data))
    unseen = task(data).read_test(settings)
    assert len(unseen.frame) == 22 and unseen.sample == data / "sample_submission.csv"
    assert "target" not in unseen.frame
    (data / "test.tsv").write_text("我再家\t我在家\n")
    with pytest.raises(DataError, match=r"holds test\.csv and test\.tsv: one of .* Set test_files"):
        task(data).read_test(settings)
    named = settings.replace(test_files=("test.tsv",))
    assert task(data).read_test(named).frame["target"].tolist() == ["我在家"]
    both = settings.replace(test_files=("test.csv", "test.tsv"))
    frame = task(data).read_test(both).frame
    assert "target" not in frame and len(frame) == 23  # not all have one
    for name in ("test.csv", "test.tsv"):
        (data / name).unlink()
    with pytest.raises(DataError, match="holds no test file"):
        task(data).read_test(settings)


def test_a_missing_confusion_file_names_the_folder_and_the_cure(data: Path) -> None:
    (data / "confusion.txt").unlink()
    with pytest.raises(DataError, match=r"has no confusion\.txt\. Set data_dir"):
        task(data, confusion_files=("confusion.txt",)).read_train()


def test_a_confusion_set_comes_back_from_the_record_or_is_refused() -> None:
    confusion = ConfusionSet.from_dict({"在": "再才"})
    assert restore_confusion({"confusion": confusion.to_dict()}) == confusion
    assert restore_confusion({}) is None
    for damaged in (None, [], ["confusion"], "confusion", 3, {"confusion": None}):
        with pytest.raises(ArtifactError, match="confusion set in it is damaged"):
            restore_confusion(damaged)
    for table in ([], {"在": 3}, {"在再": "才"}, "在"):
        with pytest.raises(ArtifactError, match="confusion set in it is damaged"):
            restore_confusion({"confusion": table})
