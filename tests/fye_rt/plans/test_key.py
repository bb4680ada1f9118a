"""A key holds all that a plan depends on; two that differ say in what."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fye_rt.errors import OptionError
from fye_rt.plans import PlanCache
from fye_rt.plans.key import PlanKey, profile
from tests.fye_rt.plans.sample import BUILD, CONTENT, KEY, OTHERS, other, refusal


def test_every_field_of_a_key_is_tried_by_these_tests() -> None:
    assert list(OTHERS) == [field.name for field in fields(PlanKey)]


@pytest.mark.parametrize("field", OTHERS)
def test_a_key_that_differs_in_one_field_is_refused_by_that_field(field: str, cache: PlanCache) -> None:
    cache.publish(KEY, CONTENT, {})
    message = refusal(cache, other(field))
    _, there, here = OTHERS[field]
    assert here in message and there in message
    told = [word for name, (_, word, _) in OTHERS.items() if word and name != field and word.split()[0] in message]
    assert told == []
    assert refusal(cache, other(field)) == cache.missing_message(other(field), BUILD)


def test_the_message_is_about_the_plan_that_differs_least(cache: PlanCache) -> None:
    cache.publish(replace(KEY, sm="sm_80", driver="1", flags=()), CONTENT, {})
    cache.publish(replace(KEY, driver="2", precision="fp32"), CONTENT, {})
    cache.publish(replace(KEY, graph="guider"), CONTENT, {})
    message = refusal(cache)
    assert "there is one for driver 2, precision fp32; this is driver 580.65.06, precision fp16" in message


def test_shapes_of_more_or_fewer_inputs_are_named(cache: PlanCache) -> None:
    cache.publish(replace(KEY, profile=KEY.profile[:1]), CONTENT, {})
    message = refusal(cache)
    assert "shapes fewer inputs" in message and "and 1 more inputs" in message


def test_the_order_of_facts_flags_and_inputs_makes_no_difference(tmp_path: Path) -> None:
    turned = replace(KEY, profile=KEY.profile[::-1], flags=KEY.flags[::-1])
    assert turned == KEY and turned.digest == KEY.digest and hash(turned) == hash(KEY)
    facts = {"created": "then", "a": 1, "b": {"c": 2, "d": 3}}
    backwards = {"b": {"d": 3, "c": 2}, "a": 1, "created": "then"}
    written = []
    for key, noted in ((KEY, facts), (turned, backwards)):
        written.append((PlanCache(tmp_path).publish(key, CONTENT, noted) / "plan.json").read_bytes())
    assert written[0] == written[1]


def test_json_of_anything_but_a_key_is_refused() -> None:
    damaged: list[Any] = [None, [], {}, {**KEY.to_json(), "profile": {"latents": [[1], [1], [float("inf")]]}}]
    for values in damaged:
        with pytest.raises(ValueError, match="not a plan's key"):
            PlanKey.from_json(values)


texts = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), max_size=5)
lengths = st.lists(st.integers(0, 9), max_size=3).map(tuple)
keys = st.builds(
    PlanKey,
    texts,
    *[texts] * 5,
    st.dictionaries(texts, st.tuples(lengths, lengths, lengths), max_size=3).map(profile),
    texts,
    st.lists(texts, max_size=3).map(tuple),
)


@settings(max_examples=50)
@given(keys)
def test_a_key_survives_json(key: PlanKey) -> None:
    read = PlanKey.from_json(json.loads(json.dumps(key.to_json())))
    assert read == key and read.digest == key.digest and hash(read) == hash(key)


@settings(max_examples=50)
@given(keys, keys, st.sampled_from(list(OTHERS)))
def test_different_keys_have_different_digests(first: PlanKey, second: PlanKey, field: str) -> None:
    close = replace(first, **{field: getattr(second, field)})
    for one, two in ((first, second), (first, close)):
        assert (one.digest == two.digest) == (one == two)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"graph": "den\noiser"}, "control characters"),
        ({"flags": ("refit\x1b",)}, "control characters"),
        ({"profile": (("x", ((1,), (1,))),)}, "x has 2 shapes"),
        ({"profile": (("x", ((1,), (1,), (1,))), ("x", ((2,), (2,), (2,))))}, "named twice"),
    ],
)
def test_a_key_of_control_characters_or_a_wrong_profile_is_refused(change: Any, reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        replace(KEY, **change)
