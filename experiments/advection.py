"""Does IReLU solve a differential equation of first order as well as tanh does?

Claim tested. Lo and Huang (arXiv:2310.01649) propose IReLU for training on derivatives of first
order, because its derivative is ReLU. Here u_t + u_x = 0 is solved on a periodic interval from its
residual alone; the exact solution is known, so that the error of the solution (nrmse) stands beside
the residual that is trained. The initial condition is built into the solution, or, in the `soft`
variant, a term of the loss.

Commands:
  dcnn --config=advection --workdir=results/advection

Variants, after a colon:
  soft    the initial condition as a term of the loss against one that is built in
  smoke   two arms, three seeds, seconds
"""

from dcnn import configs


def get_config(arg: str = "") -> configs.ConfigDict:
  """The configuration of a variant; the empty one compares activations."""
  variants = {"": main, "soft": soft, "smoke": smoke}
  if arg not in variants:
    raise ValueError(f"unknown variant {arg!r}; known are {', '.join(filter(None, variants))}")
  return variants[arg]()


def main() -> configs.ConfigDict:
  """IReLU at several constants, and its integral, against tanh."""
  config = configs.default("advection")
  config.experiment = "advection"
  config.question = (
      "Does IReLU solve an equation of first order as well as tanh does? "
      "Advection on a periodic interval, from its residual alone.")
  config.activation.name = "tanh"
  config.arms = (
      {"activation.name": "tanh"},
      {"activation.name": "irelu", "activation.c": 0.5},
      {"activation.name": "irelu", "activation.c": 0.5, "init": "variance_preserving"},
      {"activation.name": "silu"},
      {"activation.name": "sine"},
  )
  config.steps, config.chunk, config.batch_size, config.seeds = 2000, 100, 100, 10
  config.optimizer.learning_rate = 3e-3
  return config


def soft() -> configs.ConfigDict:
  """What building the initial condition in buys."""
  config = main()
  config.experiment = "advection:soft"
  config.arms = tuple(
      {"activation.name": name, "equation.hard_initial": hard}
      for name in ("tanh", "irelu") for hard in (True, False))
  return config


def smoke() -> configs.ConfigDict:
  """Seconds: does everything run?"""
  config = main()
  config.experiment = "advection:smoke"
  config.arms = config.arms[:2]
  config.points.train, config.points.valid, config.points.grid = 100, 50, (9, 16)
  config.steps, config.chunk, config.batch_size, config.seeds = 60, 20, 20, 3
  return config
