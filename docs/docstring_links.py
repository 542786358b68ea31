"""Roles of docstrings as links of the site: ``:class:`~earmark.Tagger``` becomes a link to ``Tagger``.

Conventions: an extension of Griffe, which reads the docstrings for mkdocstrings. A target that has no place
in the reference stays text.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:func|class|meth|attr|data|mod):`(~?)([\w.]+)`")


class DocstringLinks(griffe.Extension):
    """Replaces the roles in the docstring of each object."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites the docstring of one object."""
        if obj.docstring:
            obj.docstring.value = ROLE.sub(lambda role: link(role[1], role[2], obj), obj.docstring.value)


def link(tilde: str, target: str, obj: griffe.Object) -> str:
    """The link of a role, as a reference that may be missing; a short name is one of the object's scope."""
    shown = target.rsplit(".", 1)[-1] if tilde else target
    scope = obj if obj.is_class or obj.is_module else obj.parent
    identifier = target if "." in target or scope is None else f"{scope.path}.{target}"
    return f'<autoref identifier="{identifier}" optional><code>{shown}</code></autoref>'
