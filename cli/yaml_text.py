"""YAML, whose module comes with an extra."""

from typing import Any

from cli.console import ConfigurationProblem, install_command


def yaml_module() -> Any:
    """PyYAML. Raises ConfigurationProblem where the extra `cli` is not installed."""
    try:
        import yaml
    except ModuleNotFoundError:
        raise ConfigurationProblem(f"files and YAML need the extra `cli`: {install_command('cli')}") from None
    return yaml


def yaml_of(tree: Any) -> str:
    """A tree as YAML."""
    yaml = yaml_module()
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(tree, Dumper=dumper, sort_keys=False, allow_unicode=True, width=110)
    return text
