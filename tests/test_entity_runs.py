from __future__ import annotations
import time, json


def test_probe(entity_runs, name_entities, entity_material):
    for r in entity_runs:
        print(r.record["pooled"], r.record["o_bias"], r.record["o_bias_f1"])
    t = time.time()
    rows = name_entities()
    print(time.time() - t, sum(len(r["entities"]) for r in rows), len(rows))
    print(rows[1])
