"""Conditions on the columns of an archive, such as ``duration_s>=5``.

Conventions: a condition is COLUMN OPERATOR VALUE; the operators are ``=``, ``!=``, ``<``, ``<=``, ``>``,
``>=``, and ``~`` for a part of a text. The value has the type of its column; a point in time is ISO 8601 with
its zone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from earmark.errors import DataError

if TYPE_CHECKING:
    import pyarrow

_FORM = re.compile(r"\s*(\w+)\s*(!=|<=|>=|=|<|>|~)\s*(.*?)\s*", re.DOTALL)


@dataclass(frozen=True)
class Condition:
    """One condition on a column.

    Args:
        column: Name of the column.
        operator: One of ``= != < <= > >= ~``.
        value: As written.
    """

    column: str
    operator: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Reads a condition.

        Raises:
            DataError: If the text has another form.
        """
        found = _FORM.fullmatch(text)
        if found is None:
            raise DataError(
                f"condition {text!r}: must be COLUMN OPERATOR VALUE with one of = != < <= > >= ~, such as "
                "duration_s>=5"
            )
        return cls(*found.groups())

    def expression(self, form: pyarrow.Schema) -> Any:
        """The condition as an Arrow expression.

        Args:
            form: The schema that has the column.

        Raises:
            DataError: If the value is not one of the column's type.
        """
        import pyarrow
        from pyarrow import compute

        kind, field = form.field(self.column).type, compute.field(self.column)
        if self.operator == "~":
            if not pyarrow.types.is_string(kind):
                raise DataError(f"condition on {self.column}: ~ is for texts, the column is of {kind}")
            return compute.match_substring(field, self.value)
        try:
            value = pyarrow.scalar(self.value).cast(kind)
        except (pyarrow.ArrowException, ValueError):
            raise DataError(f"condition on {self.column}: {self.value!r} is not a value of {kind}") from None
        return {
            "=": field.__eq__,
            "!=": field.__ne__,
            "<": field.__lt__,
            "<=": field.__le__,
            ">": field.__gt__,
            ">=": field.__ge__,
        }[self.operator](value)
