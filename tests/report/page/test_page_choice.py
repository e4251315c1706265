"""Which recipe should I use: the rule, in words, and the front of the plot."""

import numpy as np
import pytest

MIB = 2**20


ENTRY = {"kind": "run", "num_runs": 1, "num_ok": 1, "status": "ok", "ttt_seconds": 10, "memory": 10 * MIB, "score": 0.8}


@pytest.mark.slow
def test_the_rule_of_the_recipe_box(page, embedded):
    page.open(embedded)
    entries = [
        ENTRY | {"label": "full", "kind": "baseline", "score": 0.80, "ttt_seconds": 30, "memory": 60 * MIB},
        ENTRY | {"label": "quick", "score": 0.785, "ttt_seconds": 10, "memory": 40 * MIB},
        ENTRY | {"label": "small", "score": 0.782, "ttt_seconds": 20, "memory": 15 * MIB, "memory_high": 21 * MIB},
        ENTRY | {"label": "poor", "score": 0.6, "ttt_seconds": 1, "memory": 5 * MIB},
        ENTRY | {"label": "top", "score": 0.81, "ttt_seconds": 90, "memory": 90 * MIB},
        ENTRY | {"label": "dead", "num_ok": 0, "status": "oom", "score": None, "memory": None},
        ENTRY | {"label": "blank", "score": None},
        ENTRY | {"label": "unweighed", "memory": None, "score": 0.805, "ttt_seconds": 40},
        ENTRY | {"label": "majority", "kind": "control", "score": 0.9, "ttt_seconds": 0},
    ]

    def ask(budget, tolerance, reference, changed=entries):
        code = "const [entries, ...asked] = arguments, setting = {entries, score: 'accuracy'};"
        code += "return window.tunematrix.recommend(setting, ...asked)"
        found = page.js(code, changed, budget and budget * MIB, tolerance, reference)
        if "problem" in found:
            return found["problem"]
        others = [entry["label"] for entry in found["others"]]
        out = {why: [entry["label"] for entry in left] for why, left in found["out"].items() if left}
        return found["pick"] and found["pick"]["label"], others, out

    assert ask(None, 0.03, "best") == (
        "quick", ["small", "full", "unweighed", "top"], {"quality": ["poor"], "failed": ["dead"], "unknown": ["blank"]}
    )  # fmt: skip
    assert ask(None, 0.02, "baseline")[0] == "quick"
    assert ask(None, 0.0, "best")[:2] == ("top", [])
    assert ask(30, 0.03, "best")[0] == "small"
    assert ask(20, 0.03, "best")[0] is None, "of several seeds the highest has to fit"
    assert ask(30, 0.03, "best")[2]["unknown"] == ["blank", "unweighed"]
    assert ask(None, 0.03, "baseline", entries[1:]) == "there is no finished baseline to measure from"
    untimed = [entry | {"ttt_seconds": None} for entry in entries]
    assert ask(None, 0.03, "best", untimed)[0] == "small", "without times the least memory"


@pytest.mark.slow
def test_the_recipe_box_in_words(page, embedded):
    page.open(embedded)
    assert page.text("#answer .lead") == (
        "Use lora, the fastest of the 6 recipes that end no more than 2 points below the best (qlora8, 83.1 %): "
        "it reaches 81.1 % (2.0 points below qlora8), trains in 11.5 s and needs 13.3 MiB."
    )
    assert "3 seeds: differences below about 6.1 points cannot be told apart" in page.text("#answer")
    assert "The tolerance asked for is finer than that." in page.text("#answer")
    page.choose("#budget", "8")
    assert page.text("#answer .lead").startswith(
        "No recipe fits into 8 MiB and ends no more than 2 points below the best"
    )
    assert "Over the budget: " in page.text("#answer")
    page.choose("#tolerance", "20")
    assert page.text("#answer .lead").startswith("Use freeze, the only recipe that fits into 8 MiB")
    page.choose("#budget-unit", str(2**30))
    assert "fit into 8 GiB" in page.text("#answer .lead")
    page.choose("#budget", "-1")
    assert "A budget is a number above zero" in page.text("#answer")


@pytest.mark.slow
def test_the_front_in_all_directions(page, embedded):
    page.open(embedded)
    spots = np.random.default_rng(0).integers(0, 6, (40, 2)).tolist()
    for x, y in (("low", "high"), ("high", "high"), ("low", "low"), ("high", "low")):
        code = (
            "const [spots, ...better] = arguments; return tunematrix.front(spots.map(([x, y]) => ({x, y})), ...better)"
        )
        found = page.js(code, spots, x, y)

        def worth(spot, x=x, y=y):
            return (spot[0] if x == "high" else -spot[0]), (spot[1] if y == "high" else -spot[1])

        def beaten(spot):
            mine = worth(spot)
            return any(all(a >= b for a, b in zip(worth(o), mine, strict=True)) and worth(o) != mine for o in spots)

        assert sorted([p["x"], p["y"]] for p in found) == sorted(spot for spot in spots if not beaten(spot))
