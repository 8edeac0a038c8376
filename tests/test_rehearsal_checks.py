"""A run and a submission are judged as on Kaggle: what fails there fails here, and only that."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kernel_lib.offline.rehearsal import checks
from kernel_lib.offline.rehearsal.checks import Check, check_run, shown
from kernel_lib.offline.rehearsal.hidden import write_hidden
from kernel_lib.offline.rehearsal.kaggle_run import KaggleRun
from kernel_lib.offline.rehearsal.sandbox import Outcome
from kernel_lib.offline.rehearsal.submission import check_submission

TOKEN = "0123456789abcdef0123456789abcdef"
GOOD = Outcome(0, 2.0, False)
FAILED = Outcome(1, 2.0, False)


def found(list_of_checks: Sequence[Check]) -> dict[str, str]:
    """The problems, by what does not hold."""
    return {check.name: check.detail for check in list_of_checks if not check.passed}


# a run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a run that left what stands in ``working``, good but for what is changed."""
    monkeypatch.setattr(checks, "known_secrets", dict)
    working = tmp_path / "working"
    working.mkdir()
    (tmp_path / "executed.ipynb").write_text("{}")

    def make(outcome: Outcome = GOOD, **changes: Any) -> dict[str, str]:
        values = {"tokens": (TOKEN,), **changes}
        made = KaggleRun(outcome, working, tmp_path / "executed.ipynb", **values)
        return found(check_run(made, limit_seconds=60))

    return make


def test_an_honest_run_has_no_problem(run, tmp_path: Path) -> None:
    (tmp_path / "working/submission.csv").write_text("id\n")
    assert run(log="fold 1 of 2\n") == {}


def test_a_failed_run_says_the_notebooks_own_words_in_one_line(run) -> None:
    error = "infer.ipynb: DataError: no folder holds\n   test.csv. Attach it."
    assert run(FAILED, error=error, log="much else\n") == {
        "every cell ran": "infer.ipynb: DataError: no folder holds test.csv. Attach it."
    }


def test_without_an_error_the_last_line_of_the_log_is_told_or_the_exit_status(run) -> None:
    assert run(FAILED, log="fold 1\nlast words \n\n")["every cell ran"] == "last words"
    silent = run(Outcome(-11, 2.0, False))["every cell ran"]
    assert silent == "it stopped without a word, with exit status -11"


def test_an_error_does_not_show_a_token(run) -> None:
    assert run(FAILED, error=f"KeyError: {TOKEN}")["every cell ran"] == "KeyError: ***"


def test_a_module_that_the_image_lacks_is_told_with_its_package(run) -> None:
    error = "a.ipynb: ModuleNotFoundError: No module named 'iterstrat'"
    hidden = [{"kind": "hidden", "what": "iterstrat iterative-stratification"}]
    message = run(FAILED, error=error, attempts=hidden)["every cell ran"]
    assert message == f"{error}: iterative-stratification is not on Kaggle's image"
    # another error, and a module that was only asked for
    assert run(FAILED, error="a.ipynb: KeyError: 'x'", attempts=hidden) == {
        "every cell ran": "a.ipynb: KeyError: 'x'"
    }
    assert run(attempts=hidden) == {}


def test_a_run_that_was_killed_at_the_limit_is_late_and_no_more(run) -> None:
    killed = run(Outcome(-9, 61.0, True), log="epoch 1")
    assert killed == {"in time": "killed after 1 min 01 s, the limit is 1 min 00 s"}


def test_attempts_are_told_by_kind_a_few_of_them(run) -> None:
    network = [{"kind": "network", "what": f"socket.connect {n}"} for n in (1, 1, 2, 3, 4, 5)]
    problems = run(attempts=[*network, {"kind": "write", "what": "/kaggle/input/a"}])
    assert problems == {
        "no attempt to reach a network": "socket.connect 1, socket.connect 2, socket.connect 3 "
        "and 2 more",
        "nothing written outside of /kaggle/working and temporary folders": "/kaggle/input/a",
    }


def test_packets_of_native_code_count_when_nothing_else_was_seen(run) -> None:
    assert "4 packets" in run(unroutable=4)["no attempt to reach a network"]
    seen = run(unroutable=4, attempts=[{"kind": "network", "what": "socket.connect a"}])
    assert seen["no attempt to reach a network"] == "socket.connect a"


def test_only_plain_files_are_counted(run, tmp_path: Path) -> None:
    working = tmp_path / "working"
    (working / "folder").mkdir()
    for number in range(499):
        (working / "folder" / f"{number}").touch()
    (working / "link").symlink_to("folder/1")
    (working / "gone").symlink_to("nowhere")
    (working / "door").symlink_to("/dev/zero")
    (working / "home").symlink_to(Path.home())
    os.mkfifo(working / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(working / "socket"))
        (working / "last").touch()
        assert run() == {}
        (working / "one too many").touch()
        assert run()["at most 500 files"].startswith("501")


def test_a_huge_file_is_told_at_once_and_not_searched(run, tmp_path: Path) -> None:
    with open(tmp_path / "working/huge.bin", "wb") as file:
        file.truncate(10**13)  # nothing of it is on the disk
    assert run() == {"at most 20 GB": "10000.0 GB"}


# secrets


@pytest.mark.parametrize("border", [0, 1, 15, 31, 32, 33])
def test_a_token_is_found_across_the_parts_that_a_file_is_read_in(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, border: int
) -> None:
    monkeypatch.setattr(checks, "CHUNK_BYTES", 64)
    content = b"\xff\x00" * 32 * 3
    cut = 64 * 2 - border
    (tmp_path / "working/a b.bin").write_bytes(content[:cut] + TOKEN.encode() + content[cut:])
    (tmp_path / "working/clean.bin").write_bytes(content + TOKEN[:-1].encode() + content)
    assert run() == {"no secret in any output": "a b.bin holds a token from the environment"}


def test_a_token_is_found_when_a_file_comes_in_tiny_parts(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "CHUNK_BYTES", 5)
    (tmp_path / "working/a").write_bytes(b"123" + TOKEN.encode() + b"4")
    assert "a holds" in run()["no secret in any output"]


def test_the_log_and_the_executed_notebook_are_outputs_too(run, tmp_path: Path) -> None:
    (tmp_path / "executed.ipynb").write_text(f'{{"text/plain": "{TOKEN}"}}')
    problem = run(log=f"\udcff environ({{'A': '{TOKEN}'}})")["no secret in any output"]
    assert problem == "the log, the executed notebook holds a token from the environment"
    assert TOKEN not in problem
    (tmp_path / "executed.ipynb").unlink()
    assert run() == {}


def test_the_users_own_keys_are_looked_for(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "known_secrets", lambda: {"HF_TOKEN": "hf_abcdefgh12345678"})
    (tmp_path / "working/model").mkdir()
    (tmp_path / "working/model/config.json").write_text('{"token": "hf_abcdefgh12345678"}')
    assert run()["no secret in any output"].startswith("model/config.json")


def test_a_few_names_are_shown_and_the_others_counted() -> None:
    assert shown([]) == "" and shown("aab") == "a, b"
    assert shown(map(str, range(2_003))) == "0, 1, 2 and 2,000 more"


# a submission


@pytest.fixture
def judged(tmp_path: Path) -> Any:
    """Judges the bytes or text of a submission against those of a sample and training data."""
    (tmp_path / "working").mkdir()

    def judge(
        submission: str | bytes,
        sample: str = "id,score,grade\na1,0.5,1\nb2,0.5,1\n",
        train: str | None = "id,text,score,grade\nx,some,1.0,1\ny,text,5.0,3\n",
        test: str | None = None,
    ) -> dict[str, str]:
        content = submission.encode() if isinstance(submission, str) else submission
        (tmp_path / "working/submission.csv").write_bytes(content)
        (tmp_path / "sample.csv").write_text(sample)
        if train is not None:
            (tmp_path / "train.csv").write_text(train)
        if test is not None:
            (tmp_path / "test.csv").write_text(test)
        return found(
            check_submission(
                tmp_path / "working",
                tmp_path / "sample.csv",
                tmp_path / "train.csv",
                test=None if test is None else tmp_path / "test.csv",
            )
        )

    return judge


@pytest.mark.parametrize(
    "submission",
    [
        "id,score,grade\na1,3.25,1\nb2,0.5,2\n",
        "\ufeffid,score,grade\na1,3.25,1\nb2,0.5,2\n",
        '"id","score","grade"\r\n"a1","3.25","1"\r\n"b2","0.5","2"\r\n',
        "id,score,grade\na1,3.25e0,1.0\n\nb2, 0.5,2",
        "id,score,grade\na1,-2.9,-1\nb2,8.9,5\n",  # a little off the scale
    ],
    ids=["plain", "byte order mark", "quoted", "blanks", "beyond"],
)
def test_a_good_submission_has_no_problem(judged, submission: str) -> None:
    assert judged(submission) == {}


BAD = {
    "nothing": ("", "submission.csv is CSV", "No columns"),
    "only a header": ("id,score,grade\n", "a row for every id", "0 rows instead of 2"),
    "another encoding": (
        "id,score,grade\nä1,1,1\n".encode("latin-1"),
        "submission.csv is CSV",
        "codec can't decode",
    ),
    "an index": (
        ",id,score,grade\n0,a1,1,1\n1,b2,1,1\n",
        "columns as in the sample",
        "(no name), id, score, grade instead of id, score, grade",
    ),
    "an index without a name": (
        "id,score,grade\n0,a1,1,1\n1,b2,1,1\n",
        "submission.csv is CSV",
        "Expected 3 fields in line 2, saw 4",
    ),
    "no header": ("a1,1,1\nb2,1,1\n", "columns as in the sample", "a1, 1, 1 instead of"),
    "another order of columns": (
        "id,grade,score\na1,1,1\nb2,1,1\n",
        "columns as in the sample",
        "id, grade, score instead of",
    ),
    "a column twice": (
        "id,score,score\na1,1,1\nb2,1,1\n",
        "columns as in the sample",
        "id, score, score instead of",
    ),
    "blanks in a name": (
        "id, score,grade\na1,1,1\nb2,1,1\n",
        "columns as in the sample",
        "instead of",
    ),
    "a separator of its own": (
        "id;score;grade\na1;1;1\nb2;1;1\n",
        "columns as in the sample",
        "id;score;grade instead of",
    ),
    "one row": (
        "id,score,grade\na1,1,1\n",
        "the ids of this test, each once",
        "1 missing (b2)",
    ),
    "a row twice": (
        "id,score,grade\na1,1,1\na1,1,1\n",
        "the ids of this test, each once",
        "1 missing (b2), 1 more than once (a1)",
    ),
    "other ids": (
        "id,score,grade\na1,1,1\nz9,1,1\n",
        "the ids of this test, each once",
        "1 missing (b2), 1 unknown (z9)",
    ),
    "a blank at an id": (
        "id,score,grade\na1,1,1\nb2 ,1,1\n",
        "the ids of this test, each once",
        "1 missing (b2), 1 unknown ('b2 ')",
    ),
    "another order of rows": (
        "id,score,grade\nb2,1,1\na1,1,1\n",
        "in the sample's order",
        "another order",
    ),
    "a short row": (
        "id,score,grade\na1,1,1\nb2,1\n",
        "no value empty or infinite",
        "grade of b2",
    ),
    "no number": (
        "id,score,grade\na1,1,1\nb2,None,1\n",
        "no value empty or infinite",
        "score of b2 = None",
    ),
    "a comma in a number": (
        'id,score,grade\na1,1,1\nb2,"1,5",1\n',
        "no value empty or infinite",
        "score of b2 = 1,5",
    ),
    "a blank": ("id,score,grade\na1,1,1\nb2, ,1\n", "no value empty or infinite", "score of b2"),
    "infinity": (
        "id,score,grade\na1,1,1\nb2,-inf,1\n",
        "no value empty or infinite",
        "score of b2 = -inf",
    ),
    "far too high": (
        "id,score,grade\na1,9.01,1\nb2,1,1\n",
        "values near those of the training data",
        "score of a1 = 9.01",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_submission_is_told_what_is_wrong(judged, what: str) -> None:
    submission, name, detail = BAD[what]
    problems = judged(submission)
    assert detail in problems.get(name, f"not found among {problems}")


@pytest.mark.parametrize("text", ["", "nan", "NaN", "NA", "null", "None", "<NA>", "inf", "1e999"])
def test_what_is_no_finite_number_is_found_without_training_data_too(judged, text: str) -> None:
    submission = f"id,score,grade\na1,{text},1\nb2,1,1\n"
    assert set(judged(submission, train=None)) == {"no value empty or infinite"}


@pytest.mark.parametrize(
    ("wanted", "handed_in"),
    [
        ("007", "7"),
        ("1", "1.0"),
        ("1E5", "100000.0"),
        ("12345678901234567890", "1.2345678901234567e+19"),
    ],
)
def test_ids_are_texts_and_stay_as_they_are_written(judged, wanted: str, handed_in: str) -> None:
    sample = f"id,score\n{wanted},0.5\n"
    assert judged(f"id,score\n{wanted},2\n", sample) == {}
    assert (
        "1 missing"
        in judged(f"id,score\n{handed_in},2\n", sample)["the ids of this test, each once"]
    )


@pytest.mark.parametrize("name", ["NA", "null", "nan", "", " x "])
def test_ids_that_look_like_nothing_are_ids(judged, name: str) -> None:
    sample = f'id,score\n"{name}",0.5\nb,0.5\n'
    assert judged(f'id,score\n"{name}",2\nb,2\n', sample) == {}


def test_a_sample_of_one_row_is_enough(judged) -> None:
    assert judged("id,score,grade\na1,2,2\n", "id,score,grade\na1,0,0\n") == {}


def test_a_sample_with_several_rows_for_an_id_may_have_them(judged) -> None:
    rows = "id,score\na,0.5\na,0.5\nb,0.5\n"
    assert judged(rows, rows, train=None) == {}
    again = judged("id,score\na,0.5\nb,0.5\nb,0.5\n", rows, train=None)
    assert again == {"the ids of this test, each once": "1 more than once (b)"}


# texts for answers

TEXT_TRAIN = "id,text,answer\nx,a,correct words\ny,b,NA\n"


@pytest.mark.parametrize("word", ["NA", "null", "nan", "inf", "12", " ", "改正", '"a, ""b"""'])
def test_a_text_is_not_judged_as_a_number(judged, word: str) -> None:
    submission = f"id,answer\na,{word}\nb,some words\n"
    sample = "id,answer\na,here a text\nb,here a text\n"
    assert judged(submission, sample, TEXT_TRAIN) == {}
    assert judged(submission, sample, train=None) == {}


def test_a_number_in_the_sample_of_a_text_column_does_not_make_it_one_of_numbers(judged) -> None:
    assert judged("id,answer\na,some words\n", "id,answer\na,0\n", TEXT_TRAIN) == {}


def test_an_empty_text_is_a_null_to_kaggle_unless_the_sample_has_such(judged) -> None:
    submission = "id,answer\na,\nb,some words\n"
    problems = judged(submission, "id,answer\na,text\nb,text\n", TEXT_TRAIN)
    assert problems == {"no value empty or infinite": "answer of a"}
    assert judged(submission, "id,answer\na,\nb,text\n", TEXT_TRAIN) == {}
    assert judged(submission, "id,answer\na,\nb,\n", TEXT_TRAIN) == {}


def test_a_text_without_anything_may_have_an_answer_without_anything(judged) -> None:
    sample = "id,answer\na,word\nb,word\n"
    test = 'id,text\na,some words\nb,"  "\n'
    assert judged("id,answer\na,more words\nb,\n", sample, TEXT_TRAIN, test) == {}
    problems = judged("id,answer\na,\nb,\n", sample, TEXT_TRAIN, test)
    assert problems == {"no value empty or infinite": "answer of a"}
    # the sample holds the texts as they are: where one is empty, and nowhere else
    sample, test = "id,answer\na,some words\nb,\n", "id,text\na,some words\nb,\n"
    problems = judged("id,answer\na,\nb,\n", sample, TEXT_TRAIN, test)
    assert problems == {"no value empty or infinite": "answer of a"}
    swapped = judged("id,answer\nb,\na,\n", sample, TEXT_TRAIN, test)
    assert swapped["no value empty or infinite"] == "answer of a"


def test_a_number_is_wanted_for_an_empty_text_too(judged) -> None:
    problems = judged(
        "id,score\na,1\nb,\n", "id,score\na,1\nb,1\n", None, "id,text\na,some words\nb,\n"
    )
    assert problems == {"no value empty or infinite": "score of b"}


PAIRS = "id,source,target\nx,我在家,我再家\ny,你好。,您好。\nz,好,号\n"


def judged_pair(judged, *answers: str, train: str = PAIRS, test: str | None = None) -> dict:
    test = test or 'id,source\na,"他说 ""好"""\nb,"两\r\n行"\nc,\n'
    rows = [f'{name},"{answer}"' for name, answer in zip("abc", answers, strict=True)]
    submission = "\n".join(["id,target", *rows]) + "\n"
    return judged(submission, "id,target\na,x\nb,x\nc,x\n", train, test)


def test_answers_keep_the_length_of_their_texts_where_they_always_did(judged) -> None:
    assert judged_pair(judged, '她说 ""好""', "两\r\n行", "") == {}
    name = "as many characters in target as in source"
    problems = judged_pair(judged, '她说""好""', "两\n行", "")
    assert problems == {
        name: "target of a has 5 characters, its source 6, "
        "target of b has 3 characters, its source 4"
    }
    assert judged_pair(judged, '她说 ""好""', "两\r\n行", "词")[name].startswith(
        "target of c has 1"
    )


@pytest.mark.parametrize(
    "train",
    [
        PAIRS + "w,一二三,一二\n",  # not always
        "id,source,target\nx,他们,她们\ny,你好,您好\n",  # of one length all
        "id,text,target\nx,我在家,我再家\ny,好,号\n",  # of another column
    ],
    ids=["unequal", "one length", "another column"],
)
def test_where_answers_did_not_keep_it_their_length_is_free(judged, train: str) -> None:
    assert judged_pair(judged, "她", "两", "三", train=train) == {}


WORDS = "id,source,target\nx,Anna left,B-PER O\ny,so it is,O O O\n"


def test_tags_are_as_many_as_words_where_they_always_were(judged) -> None:
    assert judged_pair(judged, "O O", "O O", "", train=WORDS) == {}
    problems = judged_pair(judged, "O", "O O O", "", train=WORDS)
    assert problems == {
        "as many words in target as in source": "target of a has 1 words, its source 2, "
        "target of b has 3 words, its source 2"
    }
    assert judged_pair(judged, "O", "O", "", train=WORDS + "z,one,O O\n") == {}


def test_a_test_that_holds_the_answers_is_judged_by_its_texts(judged) -> None:
    test = "id,source,target\na,我在家里,我再家里\nb,你好,\nc,,x\n"
    assert judged_pair(judged, "我再家里", "您好", "", test=test) == {}


def test_gaps_in_the_training_data_do_not_hide_the_scale(judged) -> None:
    train = "id,score,grade\nx,1.0,\ny,,3\nz,5.0,1\n"
    problems = judged("id,score,grade\na1,99,1\nb2,1,99\n", train=train)
    assert problems == {
        "values near those of the training data": "score of a1 = 99, grade of b2 = 99"
    }


@pytest.mark.parametrize(
    "train", ["id,score,grade\nx,1,1\n", "id,score,grade\n", "other\n1\n", "id,score,grade\nx,,\n"]
)
def test_training_data_that_tell_no_scale_are_no_reason_to_complain(judged, train: str) -> None:
    assert judged("id,score,grade\na1,99,-99\nb2,0,0\n", train=train) == {}


# the file itself


def test_a_missing_submission_is_told_with_what_is_there_instead(tmp_path: Path) -> None:
    nowhere = tmp_path / "no.csv"
    (check,) = check_submission(tmp_path, nowhere, nowhere)
    assert (check.name, check.detail) == ("submission.csv is there", "in /kaggle/working: nothing")
    (tmp_path / "sub.csv").touch()
    (tmp_path / "submission.csv").mkdir()
    (check,) = check_submission(tmp_path, nowhere, nowhere)
    assert check.detail == "in /kaggle/working: sub.csv, submission.csv"


def test_a_link_for_a_submission_is_told(tmp_path: Path) -> None:
    (tmp_path / "best.csv").touch()
    (tmp_path / "submission.csv").symlink_to("best.csv")
    (check,) = check_submission(tmp_path, tmp_path / "no", tmp_path / "no")
    assert check.detail == "it is a link"


def test_the_sample_of_a_made_up_test_handed_in_as_it_is_has_no_problem(
    tmp_path: Path, material: Any
) -> None:
    write_hidden(material.competition, tmp_path / "hidden")
    sample = tmp_path / "hidden/sample_submission.csv"
    (tmp_path / "submission.csv").write_bytes(sample.read_bytes())
    assert found(check_submission(tmp_path, sample, material.competition / "train.csv")) == {}


def test_a_hundred_thousand_rows_are_judged(judged) -> None:
    """In seconds: a look through all of them for each one would take this test hours."""
    count = 100_000
    sample = pd.DataFrame({"id": [f"id{n:06d}" for n in range(count)], "score": 0.5})
    wrong = sample.assign(id=[f"no{n:06d}" for n in range(count)], score=99.0)
    assert judged(sample.to_csv(index=False), sample.to_csv(index=False)) == {}
    problems = judged(wrong.to_csv(index=False), sample.to_csv(index=False))
    assert (
        "100000 missing (id000000, id000001, id000002 and 99,997 more)"
        in problems["the ids of this test, each once"]
    )
    assert "and 99,997 more" in problems["values near those of the training data"]
