"""What the environment and `config/` say."""

from lifecycle.settings.environment import ROOT, Environment, load_environment
from lifecycle.settings.loading import Config, load_config

__all__ = ["ROOT", "Config", "Environment", "load_config", "load_environment"]
