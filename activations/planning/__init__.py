"""What would change: one comparison in the warehouse, frozen into a file."""

from activations.planning.planfile import PlanFile, PlanRow
from activations.planning.planner import FrozenPlan, PlanInput, make_plan

__all__ = ["FrozenPlan", "PlanFile", "PlanInput", "PlanRow", "make_plan"]
