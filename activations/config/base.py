"""What every model of a file is made of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, StringConstraints, field_validator
from pydantic_core.core_schema import CoreSchema, custom_error_schema


@dataclass(frozen=True, slots=True)
class Says:
    """What is said of every value that a type refuses, instead of the library's words."""

    words: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return custom_error_schema(handler(source), "form", custom_error_message=self.words)


_NAME = r"[a-z][a-z0-9_]{0,63}"

Name = Annotated[
    str,
    StringConstraints(pattern=f"^{_NAME}$"),
    Says("must be a name: lower-case letters, digits and _, at most 64"),
]
Column = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$"),
    Says("must be a column's name: letters, digits and _, at most 63"),
]
FieldName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z_$][A-Za-z0-9_.$ -]{0,99}$"),
    Says("must be a field's name: letters, digits, blanks and _ . $ -, at most 100"),
]


class Strict(BaseModel):
    """Refuses keys it does not know, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _not_blank(cls, value: Any) -> Any:
        """A blank text passes for a name until the provider, or the file system, is asked for it."""
        if isinstance(value, str) and not value.strip():
            raise ValueError("must not be blank")
        return value


def is_name(text: str) -> bool:
    """Whether the text can name an account or a sync: lower-case letters, digits and _."""
    return re.fullmatch(_NAME, text) is not None
