"""What every model of a file is made of."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

_NAME = r"[a-z][a-z0-9_]{0,63}"

Name = Annotated[str, StringConstraints(pattern=f"^{_NAME}$")]
Column = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
FieldName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_$][A-Za-z0-9_.$ -]{0,99}$")]


class Strict(BaseModel):
    """Refuses keys it does not know, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def is_name(text: str) -> bool:
    """Whether the text can name an account or a sync: lower-case letters, digits and _."""
    return re.fullmatch(_NAME, text) is not None
