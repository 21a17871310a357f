"""Wrong configuration: a sentence with file, field, value and the way out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from lifecycle.errors import ConfigError
from lifecycle.settings import ROOT, load_config, load_environment
from lifecycle.settings.models import CapRule


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "config", tmp_path / "config"))


def edit(folder: Path, name: str, change: Any) -> None:
    path = folder / name
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def problem(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(folder, env={})
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_the_projects_own_config_is_sound(folder: Path) -> None:
    config = load_config(folder, env={})
    assert len(config.segment_names) == 15
    assert set(config.campaigns) == {"winback", "vip_thanks"}


def test_unknown_segment_in_a_campaign(folder: Path) -> None:
    edit(folder, "campaigns.yaml", lambda c: c["campaigns"][1].update(segments=["dorment"]))
    assert problem(folder) == (
        'config/campaigns.yaml: winback.segments "dorment" is not defined; did you mean "dormant"?'
    )


def test_unknown_key(folder: Path) -> None:
    edit(folder, "caps.yaml", lambda c: c["caps"][0].update(dayz=3))
    assert problem(folder) == (
        'config/caps.yaml: caps[email_2_per_7_days]: unknown key "dayz"; did you mean "days"?'
    )


def test_unknown_key_with_nothing_close_lists_what_is_known(folder: Path) -> None:
    edit(folder, "caps.yaml", lambda c: c["caps"][0].update(quux=3))
    known = ", ".join(sorted(CapRule.model_fields))
    assert problem(folder).endswith(f'unknown key "quux"; known: {known}')


def test_missing_and_wrong_values_are_told_together(folder: Path) -> None:
    edit(folder, "caps.yaml", lambda c: c["caps"][0].pop("limit"))
    edit(folder, "segments.yaml", lambda c: c["segments"]["vip"].update(top_share=5))
    told = problem(folder)
    assert "config/caps.yaml: caps[email_2_per_7_days].limit is missing" in told
    assert 'config/segments.yaml: segments.vip.top_share "5": input should be less than or equal to 1' in told


def test_negative_limit(folder: Path) -> None:
    edit(folder, "caps.yaml", lambda c: c["caps"][0].update(limit=-1))
    assert 'caps[email_2_per_7_days].limit "-1"' in problem(folder)


def test_unknown_zone_currency_and_shop(folder: Path) -> None:
    edit(folder, "campaigns.yaml", lambda c: c.update(timezone="Europe/Pari"))
    edit(folder, "shops.yaml", lambda c: c.update(base_currency="EURO"))
    told = problem(folder)
    assert 'config/campaigns.yaml: timezone "Europe/Pari": "Europe/Pari" is not a time zone' in told
    assert '"EURO" is not an ISO 4217 currency' in told


def test_a_shop_whose_currency_has_no_rate(folder: Path) -> None:
    edit(folder, "shops.yaml", lambda c: c["shops"][1].update(currency="JPY"))
    assert "harbour.currency JPY has no exchange rate" in problem(folder)


def test_a_real_mail_server_needs_links_that_work(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(folder, env={"TERN_SMTP_HOST": "smtp.provider.net"})
    assert 'tracking.base_url "http://localhost:8025" must be an https address' in str(caught.value)
    assert 'email.bounce_domain "bounce.example.com" is an example' in str(caught.value)
    sound = {"TERN_TRACKING_URL": "https://t.brand.net", "TERN_BOUNCE_DOMAIN": "bounce.brand.net"}
    load_config(folder, env={"TERN_SMTP_HOST": "smtp.provider.net", **sound})


def test_two_of_one_name(folder: Path) -> None:
    edit(folder, "campaigns.yaml", lambda c: c["campaigns"].append(dict(c["campaigns"][0])))
    assert 'two campaigns are named "vip_thanks"; rename one' in problem(folder)


def test_missing_file_and_broken_yaml(folder: Path) -> None:
    (folder / "caps.yaml").unlink()
    (folder / "channels.yaml").write_text("channels: [")
    told = problem(folder)
    assert "config/caps.yaml: the file is missing" in told
    assert "config/channels.yaml: not readable as YAML" in told


def test_a_variable_that_the_environment_does_not_have(folder: Path) -> None:
    edit(folder, "shops.yaml", lambda c: c["shops"][0].update(url="${TERN_NOWHERE}"))
    assert problem(folder) == "config/shops.yaml: environment variable TERN_NOWHERE is not set"


def test_environment_makes_one_key_and_keeps_it(tmp_path: Path) -> None:
    first = load_environment({"TERN_DATA": str(tmp_path)})
    again = load_environment({"TERN_DATA": str(tmp_path)})
    assert first.secret == again.secret
    assert len(first.secret) >= 32
    assert (tmp_path / "secret.key").stat().st_mode & 0o777 == 0o600


def test_environment_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="TERN_SECRET is too short"):
        load_environment({"TERN_DATA": str(tmp_path), "TERN_SECRET": "short"})
    with pytest.raises(ConfigError, match='"mysql" databases are not supported'):
        load_environment({"TERN_DATA": str(tmp_path), "TERN_DATABASE_URL": "mysql://x"})
