"""Does the answer of the ablations hold beyond ethanol? Eight molecules, one sweep each.

Claim tested: that labels should be standardised, that the constant of IReLU then hardly matters,
and that IReLU beats SiLU only where labels are badly scaled, hold for other molecules and for
test frames later in time than those of training, not just between them.

Commands, one for each molecule, and one for all of them together:
  dcnn --config=molecules:aspirin --workdir=results/molecules/aspirin
  dcnn compare results/molecules/* --by=dataset

Variants, after a colon: the name of an embedded molecule, or MOLECULE_blocks, which is trained on
an early stretch of its trajectory and tested on a later one.
"""

from dcnn import configs

MOLECULES = (
    "ethanol", "malonaldehyde", "benzene", "uracil", "toluene", "salicylic_acid", "naphthalene",
    "aspirin")
BLOCKS = "_blocks"


def get_config(arg: str = "") -> configs.ConfigDict:
  """The configuration of a molecule; the empty variant is ethanol."""
  molecule = arg.removesuffix(BLOCKS) or MOLECULES[0]
  if molecule not in MOLECULES:
    raise ValueError(f"unknown variant {arg!r}; known are {', '.join(MOLECULES)}, each also with "
                     f"{BLOCKS} after it")
  config = configs.default()
  config.experiment = f"molecules:{arg or MOLECULES[0]}"
  config.question = (
      "Do label scaling, constant and activation matter for other molecules as for ethanol?")
  config.dataset = molecule
  config.model.features = 32
  config.model.blocks = 2
  config.model.radial = 20
  config.batch_size = 5
  config.optimizer.learning_rate = 5e-3
  config.steps = 3000
  config.chunk = 200
  config.seeds = 5
  config.arms = (
      {"activation.c": 0.5},
      {"labels": "standardize"},
      {"labels": "standardize", "activation.c": 0.1},
      {"labels": "standardize", "activation.c": 1.0},
      {"activation.name": "silu"},
      {"activation.name": "silu", "labels": "standardize"},
  )
  names = tuple(map(configs.arm_name, config.arms))
  config.tables = (
      {"title": "Against power-of-ten labels", "baseline": names[0], "arms": names},
      {"title": "Against standardised labels", "baseline": names[1],
       "arms": (names[1], names[2], names[3], names[5])},
  )
  if arg.endswith(BLOCKS):
    config.split.method = "blocks"
    config.split.gap = 20
  return config
