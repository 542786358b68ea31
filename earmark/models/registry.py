"""Networks by name: ``create_model("mn04", num_classes=18)``.

Conventions: an architecture is a name, a network class with its dataclass of choices, and the choices that
the name fixes. An unknown name or argument is an error that names what there is; there is no default branch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, TypeVar

from earmark.errors import ModelError
from earmark.models.fuse_batch_norm import fold_norms
from earmark.models.network import Network, NetworkConfig

N = TypeVar("N", bound=Network)


@dataclass(frozen=True)
class Architecture:
    """What a name stands for: how the network is built and which choices the name fixes."""

    build: Callable[[Any], Network]
    config_class: type[NetworkConfig]
    fixed: Mapping[str, object]

    @property
    def arguments(self) -> tuple[str, ...]:
        """The choices that are left to the caller."""
        return tuple(field.name for field in fields(self.config_class) if field.name not in self.fixed)


_ARCHITECTURES: dict[str, Architecture] = {}


def register(
    config_class: type[NetworkConfig], names: Mapping[str, Mapping[str, object]]
) -> Callable[[type[N]], type[N]]:
    """Enters a network class under its names; used as a decorator.

    Args:
        config_class: The dataclass that the network is built from.
        names: Each name of the network, and the choices which that name fixes.

    Returns:
        The decorator.

    Raises:
        ModelError: If a name is taken.
    """

    def enter(network_class: type[N]) -> type[N]:
        taken = sorted(_ARCHITECTURES.keys() & names.keys())
        if taken:
            raise ModelError(f"architecture {taken[0]!r} is registered already: choose another name")
        for name, fixed in names.items():
            _ARCHITECTURES[name] = Architecture(network_class, config_class, fixed)
        return network_class

    return enter


def architectures() -> list[str]:
    """Lists the names that create_model knows, in alphabetical order."""
    return sorted(_ARCHITECTURES)


def create_model(architecture: str, **arguments: Any) -> Network:
    """Builds a network with fresh random weights.

    Args:
        architecture: One of architectures().
        **arguments: Fields of the architecture's dataclass, such as num_classes.

    Returns:
        The network, in training mode.

    Raises:
        ModelError: If the name or an argument is unknown, or a value is not possible.
    """
    config = configure(architecture, **arguments)
    return _built(_ARCHITECTURES[architecture].build, config)


def rebuilt(network: Network, **changes: Any) -> Network:
    """Builds a network again, with fresh random weights and some of its choices changed.

    Args:
        network: From the registry.
        **changes: Fields of its dataclass.

    Returns:
        The network, in training mode.

    Raises:
        ModelError: If a value is not possible.
    """
    return _built(type(network), replace(network.config, **changes))


def _built(build: Callable[[Any], Network], config: NetworkConfig) -> Network:
    network = build(config)
    if config.fused:
        fold_norms(network)
    return network


def configure(architecture: str, **arguments: Any) -> NetworkConfig:
    """Checks what a network is to be built from, and completes it; arguments and errors as in create_model.

    Returns:
        All choices of the network.
    """
    entry = _ARCHITECTURES.get(architecture)
    if entry is None:
        near = get_close_matches(architecture.lower(), _ARCHITECTURES, n=3, cutoff=0.3) or architectures()
        raise ModelError(f"there is no architecture {architecture!r}: did you mean {' or '.join(near)}?")
    for name in arguments:
        if name in entry.fixed:
            raise ModelError(f"{architecture} fixes {name} = {entry.fixed[name]!r}: leave {name} out")
        if name not in entry.arguments:
            raise ModelError(f"{architecture} has no argument {name!r}: it has {', '.join(entry.arguments)}")
    values: dict[str, Any] = {**entry.fixed, **arguments}
    return entry.config_class(**values)
