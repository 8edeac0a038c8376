"""Chinese sentences of our own, in which every character that may go wrong is told by its context.

A sentence is one or two clauses of a domain. Each clause holds characters of ``GROUPS``, in words
where no other of the group could stand: 再 in 再见, never 在, so that a wrong one can be both seen
and mended from the characters around it. Most characters of a group are right somewhere else, so
a model that looks at a character alone does not get far.
"""

from __future__ import annotations

import numpy as np

# Characters taken for one another, by sound or by shape.
GROUPS = (
    *(
        "在再",
        "的地得",
        "坐座",
        "做作",
        "已以",
        "带戴",
        "进近",
        "请清",
        "园圆",
        "喝渴",
        "到道",
        "气汽",
    ),
)

DOMAINS: dict[str, tuple[str, ...]] = {
    "daily": (
        "{who}在家里做饭",
        "{who}想再喝一杯水",
        "{who}口渴得厉害",
        "{who}戴着红色的帽子",
        "{who}高兴地跑回家",
        "{who}请客人进来",
    ),
    "school": (
        "{who}在教室里写作业",
        "{who}请老师再讲一遍",
        "{who}坐在自己的座位上",
        "{who}已经知道答案",
        "{who}写得很清楚",
        "{who}坐在圆桌旁边",
    ),
    "travel": (
        "{who}坐汽车到北京",
        "{who}走进一座公园",
        "{who}可以慢慢地走",
        "公园附近的天气很好",
        "{who}带着雨伞",
        "{who}希望再来这里",
    ),
}
WHO = ("我", "你", "他", "她", "我们", "小明", "妈妈", "爸爸", "老师", "姐姐", "弟弟", "王先生")
WHEN = (
    "今天",
    "昨天",
    "上午",
    "晚上",
    "下午3点",
    "星期六",
    "春天",
    "2026年",
    "下雨以后",
    "吃饭以前",
)
LINKS = ("，", "，然后", "，所以", "，但是", "，而且", "；")
ENDS = ("。", "。", "。", "！")


def confusions() -> dict[str, str]:
    """For each character that may go wrong, those that it is taken for."""
    return {one: group.replace(one, "") for group in GROUPS for one in group}


def make_sentence(domain: str, random: np.random.Generator) -> str:
    """A right sentence of a domain, of 6 to 40 characters.

    Args:
        domain: a key of ``DOMAINS``.
        random: chooses.
    """

    def one_of(words: tuple[str, ...]) -> str:
        return str(words[random.integers(len(words))])

    clauses = DOMAINS[domain]
    chosen = random.permutation(len(clauses))[: random.integers(1, 3)]
    parts = [clauses[number].format(who=one_of(WHO)) for number in chosen]
    text = parts[0]
    for part in parts[1:]:
        text += one_of(LINKS) + part
    return one_of(WHEN) + text + one_of(ENDS)


def spoil(text: str, random: np.random.Generator) -> str:
    """The sentence with one or two characters taken for others of their group; same length."""
    others = confusions()
    places = [at for at, character in enumerate(text) if character in others]
    wrong = list(text)
    for at in random.permutation(places)[: random.integers(1, 3)]:
        candidates = others[text[at]]
        wrong[at] = candidates[random.integers(len(candidates))]
    return "".join(wrong)
