"""What would change: one comparison in the warehouse, frozen into a file."""

from activations.planning.comparing import PlanInput
from activations.planning.document import PlanDocument
from activations.planning.inputs import Expectation
from activations.planning.planfile import PlanFile, PlanReader, PlanRow, PlanSlice
from activations.planning.planner import FrozenPlan, make_plan
from activations.planning.preview import Preview, RowChange, some_rows

__all__ = [
    "Expectation",
    "FrozenPlan",
    "PlanDocument",
    "PlanFile",
    "PlanInput",
    "PlanReader",
    "PlanRow",
    "PlanSlice",
    "Preview",
    "RowChange",
    "make_plan",
    "some_rows",
]
