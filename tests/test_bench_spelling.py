"""The table of spelling scores: the right files, the right rows, and runs that do not fit named."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from kernel_lib.bench import spelling
from kernel_lib.bench.spelling import NGRAMS, NOTHING, measure, read_training, table
from kernel_lib.errors import DataError
from tests.conftest import SHARED

RIGHT = [
    f"{who}在图书馆{what}。" for who in "我你他她" for what in ("看书", "写字", "上课", "等人")
]
TESTS = {
    "sighan15_test": [
        ("我在图书管看书。", "我在图书馆看书。"),  # the target is in training
        ("谁在图书管看书。", "谁在图书馆看书。"),  # this one is not
        ("谁在图书馆上课。", "谁在图书馆上课。"),
        ("你好。", "您好。"),
    ],
    "ecspell_law_test": [("我在图书管看书。", "我在图书馆看书。")],
}


def write(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two test sets, training sentences, confusion sets, and files that must not be learnt from."""
    folder = tmp_path / "csc"
    for name in ("sighan15_train", "macro_gen_passage"):
        rows = [
            {"id": f"{name}-{at}", "source": text.replace("馆", "管"), "target": text}
            for at, text in enumerate(RIGHT)
        ]
        write(folder / f"{name}.jsonl", rows)
    for name in ("pycorrector_corpus500", "sighan13_test"):
        write(
            folder / f"{name}.jsonl",
            [{"id": "1", "source": "谁在图书馆看书。", "target": "谁在图书馆看书。"}],
        )
    for name, pairs in TESTS.items():
        rows = [
            {"id": f"{name}-{at}", "source": source, "target": target}
            for at, (source, target) in enumerate(pairs)
        ]
        write(folder / f"{name}.jsonl", rows)
    (folder / "confusion").mkdir()
    (folder / "confusion/same_pinyin.txt").write_text("#字\t同音\n管\t馆官\n", encoding="utf-8")
    (folder / "confusion/same_stroke.txt").write_text("在\t再\n", encoding="utf-8")
    return folder


def predicted(folder: Path, rows: list[tuple[str, str, str]]) -> Path:
    write(
        folder / "corrections.jsonl",
        [{"id": name, "source": source, "corrected": text} for name, source, text in rows],
    )
    return folder


def of_sighan(corrected: list[str]) -> list[tuple[str, str, str]]:
    """Predictions for the first test set, in another order than the file's."""
    sources = [source for source, _ in TESTS["sighan15_test"]]
    rows = [
        (f"sighan15_test-{at}", source, text)
        for at, (source, text) in enumerate(zip(sources, corrected, strict=True))
    ]
    return rows[::-1]


def test_only_training_files_are_learnt_from(data: Path) -> None:
    assert sorted(read_training(data)) == ["macro_gen_passage", "sighan15_train"]
    found = {each.name: each for each in measure(data)}
    assert found["sighan15_test"].frame["seen"].tolist() == [True, False, False, False]


def test_both_floors_are_there_and_the_better_one_mends(data: Path) -> None:
    found = {each.name: each for each in measure(data)}
    assert list(found) == ["sighan15_test", "ecspell_law_test"]
    sources = [source for source, _ in TESTS["sighan15_test"]]
    assert found["sighan15_test"].corrected[NOTHING] == sources
    mended = [text.replace("管", "馆") for text in sources]
    assert found["sighan15_test"].corrected[NGRAMS] == mended


def figures(text: str, name: str, way: str) -> list[list[str]]:
    lines = [line.split() for line in text.splitlines() if line.split()[:1] == [name]]
    words = way.split()
    return [line[1 + len(words) :] for line in lines if line[1 : 1 + len(words)] == words]


def test_the_table_holds_the_scores_of_all_and_of_unseen_sentences(
    data: Path, tmp_path: Path
) -> None:
    run = predicted(
        tmp_path / "run",
        of_sighan(["我在图书馆看书。", "谁在图书官看书。", "我在图书馆上课。", "您好。"]),
    )
    text = table(measure(data, [run]))
    # Of 3 with errors 2 are fixed and 3 located; 4 were changed, the only clean one among them.
    assert figures(text, "sighan15_test", str(run)) == [
        ["4", "3", "0.8571", "0.5714", "0.6667", "1.0000"],
        ["3", "2", "0.8000", "0.4000", "0.5000", "1.0000"],
    ]
    assert figures(text, "sighan15_test", NOTHING)[0] == ["4", "3", *["0.0000"] * 4]
    # Nothing of the law set is unseen, and the run has no sentence of it.
    assert figures(text, "ecspell_law_test", NGRAMS)[1] == ["0", "0", "-", "-", "-", "-"]
    assert figures(text, "ecspell_law_test", str(run)) == []


def test_ids_may_have_the_name_of_their_file_in_front(data: Path, tmp_path: Path) -> None:
    corrected = [target for _, target in TESTS["sighan15_test"]]
    rows = [(f"sighan15_test/{name}", *rest) for name, *rest in of_sighan(corrected)]
    rows += [("ecspell_law_test/ecspell_law_test-0", *TESTS["ecspell_law_test"][0])]
    run = predicted(tmp_path / "run", rows)
    found = {each.name: each for each in measure(data, [run])}
    assert found["sighan15_test"].corrected[str(run)] == corrected
    assert found["ecspell_law_test"].corrected[str(run)] == ["我在图书馆看书。"]


def test_predictions_that_do_not_fit_are_named(data: Path, tmp_path: Path) -> None:
    rows = of_sighan([source for source, _ in TESTS["sighan15_test"]])
    run = predicted(tmp_path / "run", rows[:-1])
    with pytest.raises(DataError, match=r"3 of the 4 sentences .* missing: 'sighan15_test-0'"):
        measure(data, [run])
    predicted(run, [(rows[0][0], "他好。", "您好。"), *rows[1:]])
    with pytest.raises(DataError, match=r"its source is '他好。', in sighan15_test it is '你好。'"):
        measure(data, [run])
    predicted(run, [("another", "甲", "甲")])
    with pytest.raises(DataError, match="no sentence of any test set"):
        measure(data, [run])


def test_a_folder_without_files_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no training file"):
        measure(tmp_path / "nothing")
    for name in TESTS:
        (data / f"{name}.jsonl").unlink()
    with pytest.raises(DataError, match="holds no test set"):
        measure(data)


def test_the_command_prints_the_table_or_one_line(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["spelling", "--data", str(data)])
    assert spelling.main() == 0
    assert NGRAMS in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["spelling", "--data", str(tmp_path / "no")])
    assert spelling.main() == 1
    assert "no training file" in capsys.readouterr().err


@pytest.mark.skipif(not (SHARED / "data/csc").is_dir(), reason="needs shared/data/csc")
def test_the_training_files_of_the_shared_data_are_the_right_twelve() -> None:
    found = read_training(SHARED / "data/csc")
    assert len(found) == 12
    assert not [name for name in found if "test" in name or "pycorrector" in name]
    assert sum(map(len, found.values())) == 37037
