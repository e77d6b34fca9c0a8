"""Config fields that carry their documentation and limits."""

import math
from dataclasses import dataclass, replace
from typing import Annotated

import pytest

from data.constants import POLICIES
from data.errors import ConfigError
from data.options import Option, Setting, check_fields, from_dict, settings


@dataclass(frozen=True, kw_only=True)
class Base:
    policy: Annotated[str, Option("Policy.", choices=POLICIES)] = "first"
    norm: Annotated[int, Option("Norm.", choices=(1, 2))] = 2
    steps: Annotated[int | None, Option("Steps.", min=1)] = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Config(Base):
    share: Annotated[float, Option("Share.", min=0, below=1)] = 0.5
    crop: Annotated[float, Option("Crop.", above=0, max=1)] = 1.0
    rate: Annotated[float, Option("Rate.", above=0, advice="use steps=1")] = 0.1
    quality: Annotated[int, Option("Quality.", max=100)] = 95
    betas: Annotated[tuple[float, float], Setting("Betas.", min=0, below=1)] = (0.9, 0.95)
    sha256: str = ""


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"policy": "longst"},
            "policy='longst' is unknown; use one of first, longest, leftmost-longest; "
            'did you mean "longest"?',
        ),
        ({"norm": 3}, "norm=3 is unknown; use 1 or 2."),
        ({"steps": 0}, "steps=0 must be at least 1."),
        ({"share": 1.0}, "share=1.0 must be in [0, 1)."),
        ({"crop": 0.0}, "crop=0.0 must be in (0, 1]."),
        ({"rate": 0.0}, "rate=0.0 must be above 0; use steps=1."),
        ({"quality": 101}, "quality=101 must be at most 100."),
        ({"betas": (0.9, 1.0)}, "betas=(0.9, 1.0) must be in [0, 1)."),
    ],
)
def test_a_wrong_value_is_one_sentence_that_states_the_limit(wrong, said):
    with pytest.raises(ConfigError) as caught:
        Config(**wrong)
    assert str(caught.value) == said


def test_bounds_exclude_nan_and_include_their_ends():
    with pytest.raises(ConfigError, match="share=nan"):
        Config(share=math.nan)
    assert replace(Config(), share=0.0, crop=1.0, steps=1, quality=100).steps == 1
    assert Config(steps=None).steps is None


@pytest.mark.parametrize(
    ("limits", "shown"),
    [
        ({}, ""),
        ({"min": 1}, "x>=1"),
        ({"above": 0}, "x>0"),
        ({"max": 9}, "x<=9"),
        ({"below": 9}, "x<9"),
        ({"min": 0, "below": 1}, "0<=x<1"),
        ({"above": 0, "max": 1}, "0<x<=1"),
    ],
)
def test_help_shows_bounds_as_an_interval(limits, shown):
    assert Setting("x", **limits).interval() == shown


def test_fields_of_a_base_class_come_first_and_plain_fields_have_no_setting():
    names = ["policy", "norm", "steps", "share", "crop", "rate", "quality", "betas"]
    assert list(settings(Config)) == names
    assert settings(Config)["steps"][0] == int | None


def test_an_unknown_key_offers_the_nearest_field():
    assert from_dict(Config, {"share": 0.25}) == Config(share=0.25)
    with pytest.raises(ConfigError, match=r'Config has no setting .stps.; did you mean "steps"\?'):
        from_dict(Config, {"stps": 1})
    with pytest.raises(ConfigError, match="at least 1"):
        from_dict(Config, {"steps": 0})
