"""What every section of a config shares."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Role = Literal["teacher", "student"]
ROLES: tuple[Role, ...] = ("teacher", "student")


class Section(BaseModel):
    """Base of all sections: frozen, closed, finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())
