"""How accurate is SchNet on a published benchmark? rMD17 ethanol, 950 + 50 + 1000 configurations.

Claim tested: the implementation is sound. A published SchNet trained on 1,000 configurations of
MD17 ethanol has a test force_loss of 16.9 meV/A and an energy_loss of 3.5 meV (K. T. Schuett et
al., arXiv:1706.08566); the constant predictor 878 meV/A and 143 meV.

The data are not part of the project. They are the rMD17 files of A. Christensen and O. A. von
Lilienfeld, Mach. Learn.: Sci. Technol. 1 (2020) 045018, one for training and validation and one
for testing:
  dcnn --config=rmd17 --config.dataset=TRAIN.extxyz \\
      --config.test_dataset=TEST.extxyz --workdir=results/rmd17
"""

from dcnn import configs


def get_config(arg: str = "") -> configs.ConfigDict:
  """The configuration; there are no variants."""
  if arg:
    raise ValueError(f"rmd17 has no variants, got {arg!r}")
  config = configs.default()
  config.experiment = "rmd17"
  config.question = "How accurate is SchNet with SiLU on rMD17 ethanol, from 950 configurations?"
  config.dataset = "train.extxyz"
  config.test_dataset = "test.extxyz"
  config.split.train = 950
  config.split.valid = 50
  config.labels = "standardize"
  config.activation.name = "silu"
  config.seeds = 3
  config.steps = 30_000
  config.chunk = 1000
  config.optimizer.learning_rate = 3e-3
  config.optimizer.ema_decay = 0.999
  return config
