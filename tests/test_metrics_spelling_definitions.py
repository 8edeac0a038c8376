"""Every definition against the worked table, and against a slow computation sentence by sentence.

The table's figures were worked out from the definitions by hand; :func:`slowly` goes through the
sentences one by one with sets of positions, and shares no code with the library.
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Iterable

import pytest

from kernel_lib.metrics.spelling import SpellingScores, spelling_scores
from kernel_lib.metrics.spelling_definitions import Score

Triple = tuple[str, str, str]

EXAMPLE: list[Triple] = [
    ("春天到了。", "春天到了。", "春天到了。"),  # clean, left alone
    ("这本书很有趣。", "这本书很有趣。", "这本书狠有趣。"),  # clean, changed
    ("我去图书管。", "我去图书馆。", "我去图书馆。"),  # fixed
    ("她身体健糠。", "她身体健康。", "她身体健慷。"),  # found, wrong character
    ("老师交我们画化。", "老师教我们画画。", "老师教我们画化。"),  # one of two fixed
    ("请把门观上。", "请把门关上。", "请把们关上。"),  # fixed, and a false change
    ("他没来上克。", "他没来上课。", "他没来上克。"),  # missed
]
# precision and recall as (part, whole), accuracy likewise or None
WORKED = {
    "official_detection": ((2, 3), (2, 5), (3, 7)),
    "official_correction": ((1, 2), (1, 5), (2, 7)),
    "official_tool_correction": ((1, 2), (1, 5), (2, 7)),
    "strict_detection": ((2, 5), (2, 5), (3, 7)),
    "strict_correction": ((1, 5), (1, 5), (2, 7)),
    "loose_detection": ((4, 5), (4, 5), (5, 7)),
    "sighan13_location": ((2, 5), (2, 5), (3, 7)),
    "sighan13_second_location": ((2, 5), (2, 5), (2, 5)),
    "sighan13_second_correction": ((1, 5), (1, 5), (1, 5)),
    "character_detection": ((4, 6), (4, 6), (40, 44)),
    "character_correction_log": ((3, 5), (3, 6), (39, 44)),
    "character_correction_all": ((3, 6), (3, 6), None),
    "character_correction_detected": ((3, 4), (3, 6), None),
    "character_correction_wang": ((3, 4), (3, 5), None),
}
WORKED_F1 = {
    "official_detection": 0.500,
    "official_correction": 0.286,
    "strict_detection": 0.400,
    "strict_correction": 0.200,
    "loose_detection": 0.800,
    "character_detection": 0.667,
    "character_correction_log": 0.545,
    "character_correction_all": 0.500,
    "character_correction_detected": 0.600,
    "character_correction_wang": 0.667,
}


def scored(triples: Iterable[Triple], **options) -> SpellingScores:
    sources, targets, predictions = zip(*triples, strict=True)
    return spelling_scores(sources, targets, predictions, **options)


def all_scores(scores: SpellingScores) -> dict[str, Score]:
    return {
        field.name: getattr(scores, field.name)
        for field in dataclasses.fields(scores)
        if isinstance(getattr(scores, field.name), Score)
    }


def test_the_table_leaves_no_definition_out() -> None:
    assert set(all_scores(scored(EXAMPLE))) == set(WORKED)


@pytest.mark.parametrize("name", WORKED)
def test_worked_example(name) -> None:
    precision, recall, accuracy = WORKED[name]
    score = getattr(scored(EXAMPLE), name)
    assert (score.hits, score.flagged) == precision
    assert (score.hits, score.wanted) == recall
    assert score.precision == precision[0] / precision[1]
    assert score.recall == recall[0] / recall[1]
    if accuracy is None:
        assert score.accuracy is score.right is score.total is None
    else:
        assert (score.right, score.total) == accuracy
        assert score.accuracy == accuracy[0] / accuracy[1]
    if name in WORKED_F1:
        assert round(score.f1, 3) == WORKED_F1[name]


def test_a_wrong_repair_counts_against_strict_precision_only() -> None:
    """S-official forgives it: only in a clean sentence can there be a false positive."""
    wrong_repair = [("健糠", "健康", "健慷"), ("图书管", "图书馆", "图书馆")]
    scores = scored(wrong_repair)
    assert scores.official_correction.precision == 1.0
    assert scores.strict_correction.precision == 0.5
    assert scores.character_correction_log.precision == 1.0
    assert scores.character_correction_all.precision == 0.5


def test_the_official_tool_takes_swapped_and_repeated_characters_for_right() -> None:
    swapped = ("他作在做位上。", "他坐在座位上。", "他座在坐位上。")
    repeated = ("他作在做位上。", "他坐在座位上。", "他坐在坐位上。")
    for triple in (swapped, repeated):
        scores = scored([triple])
        assert scores.official_tool_correction.f1 == 1.0
        assert scores.official_correction.f1 == scores.strict_correction.f1 == 0.0
        assert scores.official_detection.f1 == 1.0


def test_the_official_tool_looks_into_the_same_sentence_and_at_errors_only() -> None:
    other_sentence = [("作", "坐", "座"), ("做", "座", "坐")]
    assert scored(other_sentence).official_tool_correction.hits == 0
    not_an_error = [
        ("他坐着做", "他坐着座", "他坐着坐")
    ]  # 坐 stands there, but not as a correction
    assert scored(not_an_error).official_tool_correction.hits == 0
    elsewhere_too = [("作在做上", "坐在座上", "座们坐上")]  # positions do not agree
    assert scored(elsewhere_too).official_tool_correction.hits == 0


def test_wang_looks_into_the_same_sentence_and_at_changed_errors_only() -> None:
    # One changed error a sentence; the right character of the other was put elsewhere only.
    assert scored([("ab", "xy", "xb"), ("ab", "yx", "yb")]).character_correction_wang.wanted == 4
    assert scored([("abc", "xyc", "xby")]).character_correction_wang.wanted == 2
    # Put at a changed error, though not its own: not missing. Twice missing counts twice.
    assert scored([("ab", "xy", "yb")]).character_correction_wang.wanted == 1
    assert scored([("abc", "xyy", "xbc")]).character_correction_wang.wanted == 3
    # A sentence whose errors were all missed is not looked at.
    assert scored([("ab", "xy", "ab")]).character_correction_wang.wanted == 0


def test_the_reference_logs_eight_sentence_figures() -> None:
    """1,100 sentences, 541 with errors; 317 located, 306 fixed, 149 clean ones changed."""
    fixed, located, missed = ("ab", "xb", "xb"), ("ab", "xb", "zb"), ("ab", "xb", "ab")
    overdone, changed, kept = ("ab", "xb", "xz"), ("ab", "ab", "zb"), ("ab", "ab", "ab")
    counts = [
        (fixed, 306),
        (located, 11),
        (missed, 200),
        (overdone, 24),
        (changed, 149),
        (kept, 410),
    ]
    scores = scored([triple for triple, count in counts for _ in range(count)])
    assert (scores.sentences, scores.positives, scores.clean_changed) == (1100, 541, 149)
    detection, correction = scores.official_detection, scores.official_correction
    assert (detection.hits, detection.flagged, detection.right) == (317, 466, 727)
    assert (correction.hits, correction.flagged, correction.right) == (306, 455, 716)
    assert detection.precision == 317 / 466 and detection.recall == 317 / 541
    assert correction.precision == 306 / 455 and correction.recall == 306 / 541
    assert detection.accuracy == 727 / 1100 and correction.accuracy == 716 / 1100
    assert (round(detection.f1, 4), round(correction.f1, 4)) == (0.6296, 0.6145)
    assert round(scores.fpr, 3) == 0.267


def test_a_division_by_zero_gives_zero() -> None:
    score = Score.from_counts(hits=0, flagged=0, wanted=0, right=0, total=0)
    assert (score.precision, score.recall, score.f1, score.accuracy) == (0.0, 0.0, 0.0, 0.0)


def slowly(triples: list[Triple]) -> dict[str, tuple[int, int, int, int | None, int | None]]:
    """Hits, both denominators, and accuracy's two numbers of each definition."""
    n: Counter[str] = Counter()
    for s, t, p in triples:
        gold = {i for i in range(len(s)) if s[i] != t[i]}
        done = {i for i in range(len(s)) if s[i] != p[i]}
        n["chars"] += len(s)
        n["pos"] += bool(gold)
        n["all_changed"] += bool(done)
        n["all_same_places"] += gold == done
        n["all_equal"] += p == t
        if gold:
            n["tp_d"] += gold == done
            n["tp_c"] += p == t
            n["loose"] += bool(done)
            n["tool"] += gold == done and {p[i] for i in done} <= {t[i] for i in gold}
        elif done:
            n["fp"] += 1
        for i in range(len(s)):
            n["agree"] += (i in gold) == (i in done)
            n["equal"] += p[i] == t[i]
        n["gold"] += len(gold)
        n["changed"] += len(done)
        n["c_tp_d"] += len(gold & done)
        n["c_fp"] += len(done - gold)
        n["c_tp"] += sum(p[i] == t[i] for i in gold)
        if gold & done:
            put = [p[i] for i in sorted(gold & done)]
            for i in gold & done:
                n["w_tp" if p[i] == t[i] else "w_fp"] += 1
            n["w_fn"] += sum(t[i] not in put for i in gold)
    total, pos, gold, chars = len(triples), n["pos"], n["gold"], n["chars"]
    kept = total - pos - n["fp"]
    d, c, changed = n["tp_d"], n["tp_c"], n["all_changed"]
    return {
        "official_detection": (d, d + n["fp"], pos, d + kept, total),
        "official_correction": (c, c + n["fp"], pos, c + kept, total),
        "official_tool_correction": (n["tool"], n["tool"] + n["fp"], pos, n["tool"] + kept, total),
        "strict_detection": (d, changed, pos, n["all_same_places"], total),
        "strict_correction": (c, changed, pos, n["all_equal"], total),
        "loose_detection": (n["loose"], changed, pos, n["loose"] + kept, total),
        "sighan13_location": (d, changed, pos, n["all_same_places"], total),
        "sighan13_second_location": (d, changed, pos, d, pos),
        "sighan13_second_correction": (c, changed, pos, c, pos),
        "character_detection": (n["c_tp_d"], n["changed"], gold, n["agree"], chars),
        "character_correction_log": (n["c_tp"], n["c_tp"] + n["c_fp"], gold, n["equal"], chars),
        "character_correction_all": (n["c_tp"], n["changed"], gold, None, None),
        "character_correction_detected": (n["c_tp"], n["c_tp_d"], gold, None, None),
        "character_correction_wang": (
            n["w_tp"],
            n["w_tp"] + n["w_fp"],
            n["w_tp"] + n["w_fn"],
            None,
            None,
        ),
    }


def random_triples(generator: random.Random, count: int) -> list[Triple]:
    """Short texts over few characters, so that swaps, repeats and misses all come often."""
    alphabet, triples = "坐座作做的地得\U00020000", []
    for _ in range(count):
        target = generator.choices(alphabet, k=generator.randint(0, 9))
        source = [generator.choice(alphabet) if generator.random() < 0.2 else c for c in target]
        prediction = [
            right if generator.random() < 0.5 else generator.choice([now, *alphabet, now, now])
            for now, right in zip(source, target, strict=True)
        ]
        keep = generator.random()
        if keep < 0.2:
            prediction = source
        elif keep < 0.4:
            prediction = target
        triples.append(("".join(source), "".join(target), "".join(prediction)))
    return triples


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("count", [1, 3, 60])
def test_every_definition_equals_the_slow_computation(seed, count) -> None:
    triples = random_triples(random.Random(f"{seed} {count}"), count)
    scores = scored(triples)
    found = {
        name: (score.hits, score.flagged, score.wanted, score.right, score.total)
        for name, score in all_scores(scores).items()
    }
    expected = slowly(triples)
    assert found == expected
    for name, (hits, flagged, wanted, *_) in expected.items():
        score = getattr(scores, name)
        precision, recall = hits / max(flagged, 1), hits / max(wanted, 1)
        assert (score.precision, score.recall) == (precision, recall)
        f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
        assert score.f1 == pytest.approx(f1)


def test_the_random_triples_hold_what_tells_the_definitions_apart() -> None:
    triples = random_triples(random.Random(5), 600)
    figures = slowly(triples)
    assert figures["official_tool_correction"][0] > figures["official_correction"][0]
    telling = [figures[name][:3] for name in figures if not name.startswith("sighan13")]
    assert len(set(telling)) == len(telling)


@pytest.mark.parametrize("particles", ["drop_predicted", "give_gold"])
def test_the_particles_are_dealt_with_before_anything_is_counted(particles) -> None:
    triples = random_triples(random.Random(7), 200)
    changed: list[Triple] = []
    for s, t, p in triples:
        if particles == "drop_predicted":
            p = "".join(s[i] if p[i] in "地得" else p[i] for i in range(len(s)))
        else:
            p = "".join(t[i] if t[i] in "的地得" else p[i] for i in range(len(s)))
        changed.append((s, t, p))
    found = scored(triples, particles=particles)
    assert all_scores(found) == all_scores(scored(changed)) != all_scores(scored(triples))
    assert found.fpr == scored(changed).fpr != scored(triples).fpr
    assert found.particles == particles
