"""What can be done with trained networks: predictions, calculators of ASE, files for elsewhere."""

from dcnn.use.fields import Field
from dcnn.use.forcefields import ForceField, Predictions
from dcnn.use.runs import Runs, Trained

__all__ = ["Field", "ForceField", "Predictions", "Runs", "Trained"]
