"""Reads `config/`, checks it as a whole, and names file, field, value and the way out of every problem."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ValidationError

from lifecycle.errors import ConfigError, UnknownShop, suggest
from lifecycle.settings.channels import AnyChannel, ChannelsFile, EmailChannel
from lifecycle.settings.mailboxes import OTHER, mailboxes
from lifecycle.settings.models import (
    Campaign,
    CampaignsFile,
    CapRule,
    CapsFile,
    Counting,
    Quota,
    Section,
    Shop,
    ShopsFile,
)
from lifecycle.settings.policies import HOMES, Forbid, forbidding, policies, rules_of, serves
from lifecycle.settings.segments import Recipe, SegmentsFile

Model = TypeVar("Model", bound=Section)
_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)(?::-([^}]*))?\}")


@dataclass(frozen=True)
class Config:
    """All of `config/`, valid on its own and against itself."""

    shops_file: ShopsFile
    segments_file: SegmentsFile
    caps_file: CapsFile
    campaigns_file: CampaignsFile
    channels_file: ChannelsFile

    @property
    def base_currency(self) -> str:
        return self.shops_file.base_currency

    @cached_property
    def shops(self) -> Mapping[str, Shop]:
        return {shop.name: shop for shop in self.shops_file.shops}

    @cached_property
    def campaigns(self) -> Mapping[str, Campaign]:
        return {campaign.name: campaign for campaign in self.campaigns_file.campaigns}

    @cached_property
    def channels(self) -> Mapping[str, AnyChannel]:
        return {channel.name: channel for channel in self.channels_file.channels}

    def due(self, day: date) -> list[Campaign]:
        """Campaigns of this date; what has priority first, then as written."""
        found = (each for each in self.campaigns.values() if each.schedule is None or each.schedule.is_due(day))
        return sorted(found, key=lambda each: each.priority)

    @property
    def segment_names(self) -> tuple[str, ...]:
        """Cells of the recipe first, then the others, as written."""
        return (*self.recipe.names, *self.segments_file.segments)

    @property
    def recipe(self) -> Recipe:
        return self.segments_file.chosen

    @property
    def expire_hours(self) -> int:
        """Of the least patient channel."""
        return min(channel.expire_hours for channel in self.channels.values())

    def shop(self, name: str) -> Shop:
        try:
            return _lookup("shop", name, self.shops, "config/shops.yaml")
        except ConfigError as error:
            raise UnknownShop(str(error)) from None

    def channel(self, name: str) -> AnyChannel:
        return _lookup("channel", name, self.channels, "config/channels.yaml")

    def with_recipe(self, name: str | None) -> Config:
        """The same with another recipe of config/segments.yaml chosen; None: as it is."""
        if name is None:
            return self
        _lookup("recipe", name, self.segments_file.recipes, "config/segments.yaml")
        return replace(self, segments_file=self.segments_file.model_copy(update={"recipe": name}))

    def campaign(self, name: str) -> Campaign:
        return _lookup("campaign", name, self.campaigns, "config/campaigns.yaml")


def load_config(folder: Path, env: Mapping[str, str] = os.environ) -> Config:
    """Raises ConfigError with every problem found, one a line."""
    problems: list[str] = []
    files: dict[str, type[Section]] = {
        "shops.yaml": ShopsFile,
        "segments.yaml": SegmentsFile,
        "caps.yaml": CapsFile,
        "campaigns.yaml": CampaignsFile,
        "channels.yaml": ChannelsFile,
    }
    loaded: dict[str, Any] = {}
    for name, model in files.items():
        try:
            loaded[name] = _load_file(folder / name, model, env)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    config = Config(*(loaded[name] for name in files))
    if problems := list(_cross_check(config)):
        raise ConfigError("\n".join(problems))
    return config


def with_files(config: Config, files: Mapping[str, Path], env: Mapping[str, str] = os.environ) -> Config:
    """`config` with other files in place of some of its own: `caps`, `campaigns`, `segments`.

    Raises ConfigError with every problem found, one a line; a file is named as it was given.
    """
    models: dict[str, type[Section]] = {"caps": CapsFile, "campaigns": CampaignsFile, "segments": SegmentsFile}
    loaded: dict[str, Any] = {f"{kind}_file": _load_file(path, models[kind], env) for kind, path in files.items()}
    changed = replace(config, **loaded)
    problems = list(_cross_check(changed))
    for kind, path in files.items():
        problems = [each.replace(f"config/{kind}.yaml", _where(path)) for each in problems]
    if problems:
        raise ConfigError("\n".join(problems))
    return changed


def _lookup(kind: str, name: str, known: Mapping[str, Model], file: str) -> Model:
    if name not in known:
        raise ConfigError(f'{file}: {kind} "{name}" is not defined{suggest(name, known)}')
    return known[name]


def _load_file(path: Path, model: type[Model], env: Mapping[str, str]) -> Model:
    where = _where(path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{where}: the file is missing; copy it from the repository") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: expected keys and values; known: {', '.join(model.model_fields)}")
    try:
        return model.model_validate(_expand(raw, env, where))
    except ValidationError as error:
        raise ConfigError("\n".join(_sentences(where, raw, model, error))) from None


def _where(path: Path) -> str:
    return f"{path.parent.name}/{path.name}" if path.parent.name else path.name


def _expand(value: Any, env: Mapping[str, str], where: str) -> Any:
    """`${NAME}` and `${NAME:-default}` in texts, from the environment."""
    if isinstance(value, dict):
        return {key: _expand(item, env, where) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, env, where) for item in value]
    if not isinstance(value, str):
        return value

    def replaced(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        found = env.get(name, default)
        if found is None:
            raise ConfigError(f"{where}: environment variable {name} is not set")
        return found

    return _VARIABLE.sub(replaced, value)


def _sentences(where: str, raw: Any, model: type[Section], error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        location = _without_tags(raw, problem["loc"])
        field = _path(raw, location)
        if problem["type"] == "extra_forbidden":
            known = _known_keys(model, location[:-1])
            wrong = str(location[-1])
            yield f'{where}: {_path(raw, location[:-1], "")}unknown key "{wrong}"{suggest(wrong, known)}'
        elif problem["type"] == "missing":
            yield f"{where}: {field} is missing"
        else:
            message = problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
            shown = f' "{problem["input"]}"' if isinstance(problem["input"], str | int | float) else ""
            yield f"{where}: {field}{shown}: {message[0].lower()}{message[1:]}"


def _without_tags(raw: Any, location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Pydantic puts the kind of a rule (`vip`) into the location, where the file has no such key."""
    kept: list[int | str] = []
    value = raw
    for position, part in enumerate(location):
        if not _has(value, part) and position < len(location) - 1:
            continue
        kept.append(part)
        value = value[part] if _has(value, part) else None
    return tuple(kept)


def _path(raw: Any, location: Iterable[int | str], empty: str = "the file") -> str:
    """`campaigns[winback].segments`: list items by their name where they have one."""
    text, value = "", raw
    for part in location:
        value = value[part] if _has(value, part) else None
        if isinstance(part, int):
            name = value.get("name") if isinstance(value, dict) else None
            text += f"[{name or part + 1}]"
        else:
            text += f".{part}" if text else part
    return (text + ": " if empty == "" else text) if text else empty


def _has(value: Any, part: int | str) -> bool:
    if isinstance(value, dict):
        return part in value
    return isinstance(value, list) and isinstance(part, int) and part < len(value)


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Keys allowed at `location`, found by walking the models."""
    current: Any = model
    for part in location:
        if isinstance(part, str) and isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(part)
            current = _inner_model(field.annotation) if field else None
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _inner_model(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        if found := _inner_model(inner):
            return found
    return None


def _cross_check(config: Config) -> Iterator[str]:
    yield from _twice("config/shops.yaml", "shop", (s.name for s in config.shops_file.shops))
    yield from _rule_names(config.caps_file)
    yield from _twice("config/campaigns.yaml", "campaign", (c.name for c in config.campaigns_file.campaigns))
    yield from _twice("config/channels.yaml", "channel", (c.name for c in config.channels_file.channels))
    yield from _twice("config/segments.yaml", "segment", config.segment_names)
    yield from _rates(config)
    yield from _reachable(config)
    for channel in config.channels_file.channels:
        yield from _channel(config, channel)
    for campaign in config.campaigns_file.campaigns:
        yield from _campaign(config, campaign)
    for rule in _all_rules(config.caps_file):
        yield from _rule(config, rule)
    yield from _contradictions(config.caps_file.caps)


def _campaign(config: Config, campaign: Campaign) -> Iterator[str]:
    where = f"config/campaigns.yaml: {campaign.name}"
    for key in ("segments", "exclude"):
        yield from _unknown(f"{where}.{key}", getattr(campaign, key), config.segment_names)
    yield from _unknown(f"{where}.channel", [campaign.channel], config.channels)
    yield from _fallback(config, campaign)
    yield from _unknown(f"{where}.shops", campaign.shops or (), config.shops)
    for name in dict.fromkeys((campaign.channel, *campaign.fallback)):
        if name in config.channels:
            yield from _forbidden(config, campaign, config.channels[name])
    if campaign.purpose == "transactional" and campaign.hold_out:
        yield (
            f'{where}.hold_out "{campaign.hold_out}": nobody may be left out of a transactional message; '
            "leave hold_out out, or give the campaign another purpose"
        )


def _fallback(config: Config, campaign: Campaign) -> Iterator[str]:
    where = f"config/campaigns.yaml: {campaign.name}.fallback"
    yield from _unknown(where, dict.fromkeys(campaign.fallback), config.channels)
    for name in dict.fromkeys(each for each in campaign.fallback if campaign.fallback.count(each) > 1):
        yield f'{where} "{name}" is there twice; leave one out'
    if campaign.channel in campaign.fallback:
        yield f'{where} "{campaign.channel}" is the channel of the campaign itself; leave it out'


def _forbidden(config: Config, campaign: Campaign, channel: AnyChannel) -> Iterator[str]:
    """A shop that a campaign names must be one that may send it; of all shops, and on a channel to fall back to,
    one at the least."""
    shops = [config.shops[name] for name in _meant(campaign.shops, config) if name in config.shops]
    served = [shop for shop in shops if serves(channel, shop)]
    found = [(shop, forbidding(campaign, shop, channel.kind)) for shop in served]
    refused = {shop.name: _cited(shop, rule) for shop, rule in found if rule is not None}
    where, falls_back = f"config/campaigns.yaml: {campaign.name}", channel.name != campaign.channel
    field = f'{where}.{"fallback" if falls_back else "channel"} "{channel.name}"'
    if not shops:
        return
    if not served:
        yield f"{field} sends for none of the shops {', '.join(shop.name for shop in shops)}; name another"
    elif campaign.shops is not None and not falls_back:
        yield from (f'{where}.shops "{name}": {why}; leave the shop out' for name, why in refused.items())
    elif len(refused) == len(served):
        reasons = "; ".join(dict.fromkeys(refused.values()))
        if falls_back:
            yield f"{field}: no shop may send it there: {reasons}; leave it out"
        else:
            yield (
                f"{where}.shops is left out, and no shop may send it: {reasons}; give the campaign another "
                "channel or purpose, or leave it out"
            )


def _channel(config: Config, channel: AnyChannel) -> Iterator[str]:
    where = f"config/channels.yaml: {channel.name}"
    yield from _unknown(f"{where}.shops", channel.shops or (), config.shops)
    home = HOMES.get(channel.kind)
    for name in channel.shops or ():
        if name in config.shops and not serves(channel, config.shops[name]):
            yield (
                f'{where}.shops "{name}" is not on {home}, and {channel.kind} reaches buyers there only; leave it '
                f"out, or give the shop marketplace: {home} in config/shops.yaml"
            )
    if channel.shops is None and not any(serves(channel, shop) for shop in config.shops.values()):
        yield f"{where} sends for no shop: none is on {home}; leave the channel out"
    if isinstance(channel, EmailChannel):
        known = (*mailboxes().providers, OTHER)
        yield from _unknown(f"{where}.mailbox_providers", channel.mailbox_providers, known, "is not known")
        for account in channel.accounts:
            yield from _unknown(f"{where}.accounts[{account.name}].shops", account.shops or (), config.shops)


def _meant(shops: tuple[str, ...] | None, config: Config) -> Iterable[str]:
    return config.shops if shops is None else shops


def _cited(shop: Shop, rule: Forbid) -> str:
    who = rules_of(shop).name
    return f'{who} forbids it ({rule.name}): "{rule.says.rstrip(".")}" ({rule.source}, read {rule.dated})'


def _all_rules(file: CapsFile) -> tuple[CapRule | Quota, ...]:
    return (*file.caps, *file.quotas)


def _rule_names(file: CapsFile) -> Iterator[str]:
    """Verdicts name the rule that decided, be it a cap, a quota or a platform's."""
    yield from _twice("config/caps.yaml", "cap", (cap.name for cap in file.caps))
    yield from _twice("config/caps.yaml", "quota", (quota.name for quota in file.quotas))
    caps, of_platforms = {cap.name for cap in file.caps}, {rule.name for rule in policies().rules}
    for quota in file.quotas:
        if quota.name in caps:
            yield f'config/caps.yaml: a cap and a quota are both named "{quota.name}"; rename one'
    for name in dict.fromkeys(rule.name for rule in _all_rules(file)):
        if name in of_platforms:
            yield f'config/caps.yaml: "{name}" is the name of a rule that Tern comes with; rename yours'


def _rule(config: Config, rule: CapRule | Quota) -> Iterator[str]:
    where = f"config/caps.yaml: {rule.name}"
    yield from _unknown(f"{where}.channels", rule.channels or (), config.channels)
    yield from _unknown(f"{where}.shops", rule.shops or (), config.shops)
    yield from _unknown(f"{where}.campaigns", rule.campaigns or (), config.campaigns)
    tags = {tag for campaign in config.campaigns.values() for tag in campaign.tags}
    yield from _unknown(f"{where}.tags", rule.tags or (), tags, "is on no campaign")
    yield from _never_applies(config, rule)
    if isinstance(rule, CapRule):
        yield from _unknown(f"{where}.segments", rule.segments or (), config.segment_names)
    else:
        yield from _levels(config, rule)
        yield from _ramp(rule)


def _never_applies(config: Config, rule: Counting) -> Iterator[str]:
    """The campaigns and the channels of a rule, each defined, that have nothing in common."""
    campaigns = [config.campaigns.get(name) for name in rule.campaigns or ()]
    channels = rule.channels or ()
    if not campaigns or not channels or None in campaigns or not set(channels) <= set(config.channels):
        return
    used = dict.fromkeys(name for each in campaigns if each for name in (each.channel, *each.fallback))
    if used.keys().isdisjoint(channels):
        yield (
            f"config/caps.yaml: {rule.name} can never apply: its campaigns ({', '.join(rule.campaigns or ())}) go "
            f"through {', '.join(used)} and none of its channels ({', '.join(channels)}); leave channels out, or "
            "name other campaigns"
        )


def _levels(config: Config, quota: Quota) -> Iterator[str]:
    """Of every shop that a quota by service level is about, the limit is known."""
    if not isinstance(quota.limit, dict):
        return
    for name in _meant(quota.shops, config):
        level = config.shops[name].service_level if name in config.shops else None
        if level is not None and level not in quota.limit:
            yield (
                f'config/caps.yaml: {quota.name}.limit has none for service_level "{level}" of shop {name}'
                f"{suggest(level, quota.limit)}; add it, correct the shop in config/shops.yaml, or name the "
                f"shops that are meant in {quota.name}.shops"
            )


def _ramp(quota: Quota) -> Iterator[str]:
    """A limit of the ramp above what holds after it would never be reached."""
    if quota.ramp is None or quota.limit is None:
        return
    last = max(quota.limit.values()) if isinstance(quota.limit, dict) else quota.limit
    for limit in quota.ramp.limits:
        if limit > last:
            yield (
                f'config/caps.yaml: {quota.name}.ramp.limits "{limit}" is above the limit {last} of the quota '
                "itself; leave it out, or raise limit"
            )


def _contradictions(caps: Iterable[CapRule]) -> Iterator[str]:
    """Two caps that differ in their limit alone."""
    known: dict[str, CapRule] = {}
    for cap in caps:
        if cap.limit is None:
            continue
        same = known.setdefault(_meaning(cap), cap)
        if same is not cap and same.limit is not None:
            higher = cap if cap.limit >= same.limit else same
            yield (
                f"config/caps.yaml: {same.name} and {cap.name} count the same messages, with limits {same.limit} "
                f"and {cap.limit}: {higher.name} can never be reached; leave it out"
            )


def _meaning(cap: CapRule) -> str:
    """Equal for caps that count the same messages of the same people over the same time."""
    fields = cap.model_dump(exclude={"name", "limit", "days", "hours"})
    fields["window"] = cap.hours or (cap.days or 0) * 24
    return repr({key: sorted(set(value)) if isinstance(value, tuple) else value for key, value in fields.items()})


def _rates(config: Config) -> Iterator[str]:
    rated = {rate.currency for rate in config.shops_file.exchange_rates} | {config.base_currency}
    for shop in config.shops_file.shops:
        if shop.currency not in rated:
            yield (
                f"config/shops.yaml: {shop.name}.currency {shop.currency} has no exchange rate; "
                f"add it to exchange_rates as its price in {config.base_currency}"
            )


def _reachable(config: Config) -> Iterator[str]:
    """What leaves this machine must have links that work elsewhere (RFC 8058 wants https)."""
    base_url = config.channels_file.tracking.base_url
    for channel in config.channels_file.channels:
        through = next((host for host in _hosts(channel) if host not in _HERE), None)
        if through is None:
            continue
        if not base_url.startswith("https://"):
            yield (
                f'config/channels.yaml: tracking.base_url "{base_url}" must be an https address that recipients '
                f"can reach, because {channel.name} sends through {through}; set TERN_TRACKING_URL"
            )
        for domain in _bounce_domains(channel):
            if domain.endswith("example.com"):
                yield (
                    f'config/channels.yaml: {channel.name}.bounce_domain "{domain}" is an example; '
                    "set TERN_BOUNCE_DOMAIN to a domain of yours"
                )


_HERE = ("localhost", "127.0.0.1", "::1")


def _hosts(channel: AnyChannel) -> Iterator[str]:
    """Through which its messages with our links leave."""
    if isinstance(channel, EmailChannel):
        for account in (channel.main, *channel.accounts):
            if account.smtp is not None:
                yield account.smtp.host
            elif account.api is not None:
                yield urlsplit(account.api.url).hostname or account.api.service
    elif channel.kind != "amazon_solicitations":  # no text of ours
        yield urlsplit(channel.url).hostname or channel.url


def _bounce_domains(channel: AnyChannel) -> Iterable[str]:
    if not isinstance(channel, EmailChannel):
        return ()
    accounts = (account.bounce_domain for account in channel.accounts if account.bounce_domain)
    return dict.fromkeys((channel.bounce_domain, *accounts))


def _twice(where: str, kind: str, names: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield f'{where}: two {kind}s are named "{name}"; rename one'
        seen.add(name)


def _unknown(
    where: str, names: Iterable[str], known: Iterable[str], problem: str = "is not defined"
) -> Iterator[str]:
    known = list(known)
    for name in names:
        if name not in known:
            yield f'{where} "{name}" {problem}{suggest(name, known)}'
