"""The table of base models: each line whole, and told by domain."""

from __future__ import annotations

import re

import pytest

from launcher.cli.models import READ
from launcher.models_table import known_models
from tests.launcher.conftest import Command, ftlaunch  # noqa: F401
from training_image.errors import InputError


def test_every_line_is_whole_and_there_is_a_choice_in_each_domain() -> None:
    every = known_models()
    assert len({model.id for model in every}) == len(every)
    for model in every:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", model.id)
        assert model.kind in ("decoder", "encoder")
        assert 1e8 < model.parameters < 1e10
        assert model.licence_read in READ
        assert all((model.licence, model.domains, model.trained_on, model.source))
        assert re.fullmatch(r"20\d\d-\d\d", model.as_of)
    for domain in ("medical", "legal", "finance", "code", "general"):
        assert {model.kind for model in known_models(domain)} == {"decoder", "encoder"}
    assert any("biobert" in model.id for model in known_models("medical"))


def test_an_unknown_domain_names_those_there_are(ftlaunch: Command) -> None:
    with pytest.raises(InputError, match="astrology"):
        known_models("astrology")
    assert "finance, general" in ftlaunch("models", "--domain", "astrology", code=2).stderr
    assert {model["id"] for model in ftlaunch.json("models", "--domain", "legal")} == {
        model.id for model in known_models("legal")
    }
