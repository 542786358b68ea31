"""Networks by name: ``create_model("mn04", num_classes=18)``.

Conventions: an architecture is a name, a network class, its config class, and the fields of the config that
the name fixes. Unknown names and arguments raise a ModelError that lists the known ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, TypeVar

from earmark.errors import ModelError
from earmark.models.fuse_batch_norm import fuse_batch_norm
from earmark.models.network import Network, NetworkConfig

N = TypeVar("N", bound=Network)


@dataclass(frozen=True)
class Architecture:
    """The network class and config class of a name, and the fields that the name fixes."""

    build: Callable[[Any], Network]
    config_class: type[NetworkConfig]
    fixed: Mapping[str, object]

    @property
    def arguments(self) -> tuple[str, ...]:
        """Fields of the config that the name does not fix."""
        return tuple(field.name for field in fields(self.config_class) if field.name not in self.fixed)


_ARCHITECTURES: dict[str, Architecture] = {}


def register(
    config_class: type[NetworkConfig], names: Mapping[str, Mapping[str, object]]
) -> Callable[[type[N]], type[N]]:
    """Registers a network class under its names; used as a decorator.

    Args:
        config_class: The config class of the network.
        names: Name -> fields of the config that the name fixes.

    Returns:
        The decorator.

    Raises:
        ModelError: If a name is already registered.
    """

    def enter(network_class: type[N]) -> type[N]:
        taken = sorted(_ARCHITECTURES.keys() & names.keys())
        if taken:
            raise ModelError(f"architecture {taken[0]!r} is already registered: choose another name")
        for name, fixed in names.items():
            _ARCHITECTURES[name] = Architecture(network_class, config_class, fixed)
        return network_class

    return enter


def architectures() -> list[str]:
    """Lists the registered names in alphabetical order."""
    return sorted(_ARCHITECTURES)


def create_model(architecture: str, **arguments: Any) -> Network:
    """Builds a network with random weights.

    Args:
        architecture: One of architectures().
        **arguments: Fields of the architecture's config, such as num_classes.

    Returns:
        The network, in training mode.

    Raises:
        ModelError: If the name or an argument is unknown, or a value is invalid.
    """
    config = create_config(architecture, **arguments)
    return _build(_ARCHITECTURES[architecture].build, config)


def rebuild(network: Network, **changes: Any) -> Network:
    """Builds a network of the same class with random weights and a changed config.

    Args:
        network: A network of a registered class.
        **changes: Fields of its config.

    Returns:
        The network, in training mode.

    Raises:
        ModelError: If a value is invalid.
    """
    return _build(type(network), replace(network.config, **changes))


def _build(build: Callable[[Any], Network], config: NetworkConfig) -> Network:
    network = build(config)
    if config.fused:
        fuse_batch_norm(network)
    return network


def create_config(architecture: str, **arguments: Any) -> NetworkConfig:
    """Builds and checks the config of a network; arguments and errors as of create_model.

    Returns:
        The config.
    """
    entry = _ARCHITECTURES.get(architecture)
    if entry is None:
        near = get_close_matches(architecture.lower(), _ARCHITECTURES, n=3, cutoff=0.3) or architectures()
        raise ModelError(f"unknown architecture {architecture!r}: did you mean {' or '.join(near)}?")
    for name in arguments:
        if name in entry.fixed:
            raise ModelError(f"{architecture} fixes {name} = {entry.fixed[name]!r}: remove {name}")
        if name not in entry.arguments:
            raise ModelError(f"{architecture} has no argument {name!r}: it has {', '.join(entry.arguments)}")
    values: dict[str, Any] = {**entry.fixed, **arguments}
    return entry.config_class(**values)
