"""config.toml: two files, checked; what is wrong is named with its place."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.commands import check_keys
from backend.config import SETTINGS, Config, CustomCommand, Input, load_config, schema
from backend.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def load(folder: Path, user: str = "", site: str = "") -> Config:
    (folder / "user.toml").write_text(user)
    (folder / "site.toml").write_text(site)
    return load_config(folder / "user.toml", folder / "site.toml")


def test_without_files_all_is_as_it_comes(tmp_path: Path) -> None:
    assert load_config(tmp_path / "a", tmp_path / "b" / "c") == Config()


def test_the_user_is_above_the_site(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        user='theme = "sifdeck-light"\nfolders = ["/home"]\n[keys]\n"images.run" = "ctrl+r"',
        site='theme = "ansi-dark"\nfolders = ["/site"]\nmouse = false\n[keys]\n"deck.quit" = "Q"',
    )
    assert (config.theme, config.mouse) == ("sifdeck-light", False)
    assert config.folders == ("/site", "/home")
    assert config.keys == {"images.run": "ctrl+r", "deck.quit": "Q"}


def test_limits_of_the_site_hold_where_the_user_sets_none(tmp_path: Path) -> None:
    config = load(tmp_path, user="limits = { build = 4 }", site="[limits]\nbuild = 1\nlocal = 3")
    assert config.limits == {"build": 4, "local": 3}


def test_the_limit_of_the_cache_is_a_size(tmp_path: Path) -> None:
    assert load(tmp_path, site='cache_limit = "1.5G"').cache_limit == 3 << 29
    assert load(tmp_path, user='cache_limit = "1k"', site='cache_limit = "2k"').cache_limit == 1024
    with pytest.raises(UsageError, match=r"user.toml: cache_limit: 'much' is no size"):
        load(tmp_path, user='cache_limit = "much"')


def test_a_sites_readonly_stays(tmp_path: Path) -> None:
    assert load(tmp_path, user="readonly = false", site="readonly = true").readonly


def test_a_custom_command_is_an_argument_list(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        user="""
        [[commands]]
        name = "Scan"
        argv = ["scan", "--level={level}", "{image}"]
        view = "images"
        confirm = true
        inputs = [{ name = "level", label = "Level", choices = ["low", "high"] }]
        """,
    )
    assert config.commands == (
        CustomCommand(
            name="Scan",
            argv=("scan", "--level={level}", "{image}"),
            view="images",
            confirm=True,
            inputs=(Input(name="level", label="Level", choices=("low", "high")),),
        ),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('them = "x"', "did you mean 'theme'"),
        ("mouse = 1", "mouse takes true or false"),
        ('mouse = "yes"', "mouse takes true or false"),
        ("progress_hz = 99", "takes 1 to 30"),
        ("progress_hz = true", "a whole number"),
        ("[limits]\nbuild = 0", "limits.build takes 1 to 64"),
        ("[limits]\nbuilds = 3", "did you mean 'build'"),
        ('glyphs = "emoji"', "ascii or unicode"),
        ("folders = [1]", "folders[0] takes a text"),
        ('[[commands]]\nname = "x"', "lacks 'argv'"),
        ('[[commands]]\nname = "x"\nargv = []', "is empty"),
        ('[[commands]]\nname = "x"\nargv = "rm -rf"', "takes a list"),
        ('[[commands]]\nname = "x"\nargv = ["a"]\nconfrm = true', "did you mean 'confirm'"),
        ("= 1", "is no TOML"),
        ('"\\u001b[31m" = 1', "nobody knows '\\x1b[31m'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, user=text)
    assert said in f"{caught.value.message} {caught.value.why}"
    assert "user.toml" in caught.value.message
    assert "\x1b" not in caught.value.message


@given(data=st.binary(max_size=200))
@settings(max_examples=50)
def test_any_file_is_read_or_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "any.toml").write_bytes(data)
    with contextlib.suppress(UsageError):
        assert isinstance(load_config(tmp_path / "any.toml", tmp_path / "none"), Config)


def test_every_setting_is_an_attribute_and_described() -> None:
    assert set(SETTINGS) == set(Config.__dataclass_fields__)
    assert all(setting.help.endswith(".") for setting in SETTINGS.values())
    assert set(schema()["properties"]) == set(SETTINGS)  # type: ignore[call-overload]


def test_keys_that_clash_are_found() -> None:
    assert check_keys({}) == []
    assert check_keys({"images.run": "x"}) == []
    (clash,) = check_keys({"images.run": "p"})
    assert "images.run" in clash
    assert "deck.pull" in clash


def test_an_action_that_is_none_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'images\.run'"):
        check_keys({"images.rn": "x"})
