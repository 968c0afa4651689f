"""What do the IReLU constant and the label scaling do to energy_loss and force_loss?

Claims tested. Lo and Huang (arXiv:2310.01649) replace activations by the integral of ReLU,
c max(0, x)^2 with c = 0.5, and divide labels by a power of ten; they vary neither. Here both are
varied, one at a time, on a small SchNet and GFN2-xTB ethanol at 500 K. `naive` arms change c
alone; `init_matched` arms divide the weights that read the activation by c / 0.5, which makes the
initial network the same function, because c relu(x)^2 followed by W equals 0.5 relu(x)^2 followed
by 2 c W. `identity`, `mean_shift` and `mean/power_of_ten` separate the shift from the scale.

Came out (`:converged`, ten seeds, 95 % intervals; the whole of it is in experiments/results):
Standardised labels have 0.54 [0.46, 0.61] times the force_loss and 0.39 [0.34, 0.48] times the
energy_loss of labels divided by a power of ten; with SiLU in place of IReLU 0.45 [0.43, 0.48] and
0.24 [0.22, 0.27]. Of the constant little is left. Under standardised labels c from 0.25 to 1 gives
0.97 to 1.04 times the force_loss of c = 0.5, within 12 % each; c = 0.1 gives 1.25 [1.17, 1.38], and
1.08 [1.03, 1.12] once the initial weights are matched. IReLU beats SiLU only where labels are badly
scaled, and there in the energy alone: SiLU has 1.30 [1.15, 1.56] times its energy_loss and 0.96
[0.86, 1.07] times its force_loss under power-of-ten labels, and 0.78 [0.69, 0.87] and 0.79 [0.76,
0.82] times under standardised ones.

Commands:
  dcnn --config=ablations --workdir=results/ablations                      (1 to 5 minutes)
  dcnn --config=ablations:converged --workdir=results/converged            (half an hour or more)

Variants, after a colon:
  converged  ten times longer, and the scalings with SiLU
  constant   the constant alone, under both label scalings
  rescaling  the label scaling alone
  smoke      three arms, three seeds, seconds
  grid       all constants x all scalings, as a factorial
  activations  activations and their integrals x scalings, as a factorial
  tuned      the learning rate of each arm chosen on validation data of other seeds, same grid.
             Expected, before it was run: once the initial weights and the rate are matched or
             tuned, no constant differs.
"""

from dcnn import configs

CONSTANTS = (0.1, 0.25, 0.5, 0.75, 1.0)
SCALINGS = ("power_of_ten", "min_max", "standardize", "robust")
CONTROLS = ("identity", "mean_shift", "mean/power_of_ten")
OTHERS = tuple(c for c in CONSTANTS if c != 0.5)
BASELINE = {"activation.c": 0.5}
# Five activations and the integral of each.
ACTIVATIONS = (
    "irelu", "twice_integrated_relu", "silu", "integrated_silu", "gelu", "integrated_gelu",
    "softplus", "integrated_softplus", "tanh", "log_cosh")

QUESTION = (
    "What do the constant of IReLU and the scaling of the labels buy? "
    "A small network is trained on energies and forces; each arm changes one thing.")
# Stands at the top of the main job; tests/test_kept_results.py compares it with the results.
CONVERGED = (
    "As it comes, this is a first taste of 2,000 steps. After ten times as many steps of SchNet "
    "on the embedded data, standardised labels have 0.54 [0.46, 0.61] times the force error of "
    "power-of-ten labels, and among standardised ones constants from 0.25 to 1 differ by less than "
    "12 % (0.97 to 1.04).")


def get_config(arg: str = "") -> configs.ConfigDict:
  """The configuration of a variant; the empty one is the main job."""
  variants = {
      "": main, "constant": constant, "rescaling": rescaling, "smoke": smoke, "grid": grid,
      "tuned": tuned, "converged": converged, "activations": activations}
  if arg not in variants:
    raise ValueError(f"unknown variant {arg!r}; known are {', '.join(filter(None, variants))}")
  return variants[arg]()


def main() -> configs.ConfigDict:
  """Both ablations."""
  config = constant()
  config.experiment = "ablations"
  config.question = f"{QUESTION} {CONVERGED}"
  config.arms = (*config.arms, *({"labels": name} for name in _other_scalings()))
  config.tables = (*config.tables, _table(
      "Label scaling (baseline: power_of_ten)", "c=0.5",
      [{"labels": name} for name in (*SCALINGS[1:], *CONTROLS)]))
  return config


def constant() -> configs.ConfigDict:
  """The constant: naive and init-matched, under the paper's and under standardised labels."""
  config = base()
  config.experiment = "ablations:constant"
  raw = [BASELINE, *_constants({})]
  standardised = [{"labels": "standardize"}, *_constants({"labels": "standardize"})]
  config.arms = (*raw, *standardised)
  config.tables = (
      _table("IReLU constant, power-of-ten labels", "c=0.5", raw),
      _table("IReLU constant, standardised labels", "standardize", standardised),
  )
  return config


def rescaling() -> configs.ConfigDict:
  """The label scaling at c = 0.5."""
  config = base()
  config.experiment = "ablations:rescaling"
  config.arms = (BASELINE, *({"labels": name} for name in (*SCALINGS[1:], *CONTROLS)))
  config.tables = (
      _table("Label scaling (baseline: power_of_ten)", "c=0.5", config.arms[1:]),)
  return config


def grid() -> configs.ConfigDict:
  """All constants x all scalings: does one ablation depend on the other?"""
  config = base()
  config.experiment = "ablations:grid"
  config.steps = 4000
  arms = [
      {"activation.c": c, "labels": name} for name in (*SCALINGS, *CONTROLS) for c in CONSTANTS]
  config.arms = tuple(arms)
  crossed = _table("Constant and scaling", "c=0.5,power_of_ten", arms)
  config.tables = (crossed | {"factors": ("activation.c", "labels")}, *(
      _table(f"IReLU constant, {name} labels", configs.arm_name(BASELINE | {"labels": name}),
             [arm for arm in arms if arm["labels"] == name])
      for name in (*SCALINGS, *CONTROLS)))
  return config


def activations() -> configs.ConfigDict:
  """Five activations and their integrals, under the paper's and under standardised labels."""
  config = base()
  config.experiment = "ablations:activations"
  config.steps = 4000
  config.arms = tuple(
      {"activation.name": name, "labels": scaling}
      for scaling in ("power_of_ten", "standardize") for name in ACTIVATIONS)
  crossed = _table("Activation and scaling", "irelu,power_of_ten", config.arms)
  config.tables = (crossed | {"factors": ("activation.name", "labels")}, *(
      _table(f"Activation, {scaling} labels",
             configs.arm_name({"activation.name": "irelu", "labels": scaling}),
             [arm for arm in config.arms if arm["labels"] == scaling])
      for scaling in ("power_of_ten", "standardize")))
  return config


def converged() -> configs.ConfigDict:
  """The main job, and the scalings with SiLU, trained until more steps hardly help."""
  config = main()
  config.experiment = "ablations:converged"
  config.question = QUESTION
  config.steps = 20_000
  config.chunk = 500
  silu = [{"activation.name": "silu", "labels": name} for name in (*SCALINGS, *CONTROLS)]
  config.arms = (*config.arms, *silu)
  raw = {"activation.name": "silu", "labels": "identity"}
  config.tables = (
      *config.tables,
      _table("Scalings with a shift (baseline: standardize)", "standardize",
             [{"labels": name} for name in ("standardize", "min_max", "robust", "mean_shift")]),
      _table("Label scaling, SiLU", configs.arm_name(silu[0]), silu),
      _table("SiLU against IReLU, power-of-ten labels", "c=0.5", [BASELINE, silu[0]]),
      _table("SiLU against IReLU, standardised labels", "standardize",
             [{"labels": "standardize"}, silu[SCALINGS.index("standardize")]]),
      _table("The paper's steps, from SiLU with the labels as they are", configs.arm_name(raw),
             [raw, {"labels": "identity"}, silu[0], BASELINE]))
  return config


def tuned() -> configs.ConfigDict:
  """The main job with SiLU beside it; no arm suffers from a rate that suits another."""
  config = main()
  config.experiment = "ablations:tuned"
  config.question = QUESTION
  config.steps = 4000
  silu = [{"activation.name": "silu", "labels": name} for name in ("power_of_ten", "standardize")]
  config.arms = (*config.arms, *silu)
  config.tables = (
      *config.tables,
      _table("SiLU against IReLU, power-of-ten labels", "c=0.5", [BASELINE, silu[0]]),
      _table("SiLU against IReLU, standardised labels", "standardize",
             [{"labels": "standardize"}, silu[1]]))
  config.tuning.learning_rates = tuple(1e-3 * 2**power for power in range(6))
  config.tuning.seeds = (100, 101, 102)
  return config


def smoke() -> configs.ConfigDict:
  """Seconds: does everything run?"""
  config = base()
  config.experiment = "ablations:smoke"
  config.arms = (BASELINE, {"activation.c": 1.0}, {"labels": "standardize"})
  config.split.train, config.split.valid, config.split.test = 100, 50, 100
  config.steps, config.chunk, config.seeds = 60, 20, 3
  return config


def base() -> configs.ConfigDict:
  """What all variants share."""
  config = configs.default()
  config.question = QUESTION
  config.dataset = "ethanol"
  config.model.features = 32
  config.model.blocks = 2
  config.model.radial = 20
  config.batch_size = 5
  config.optimizer.learning_rate = 5e-3
  config.steps = 2000
  config.chunk = 100
  config.seeds = 10
  return config


def _constants(also: dict) -> list[dict]:
  """Naive and init-matched arms of each constant other than 0.5."""
  naive = [{"activation.c": c, **also} for c in OTHERS]
  matched = [{"activation.c": c, "init": "init_matched", **also} for c in OTHERS]
  return naive + matched


def _other_scalings() -> tuple[str, ...]:
  """Those that `constant` does not hold already."""
  return tuple(name for name in (*SCALINGS, *CONTROLS)
               if name not in ("power_of_ten", "standardize"))


def _table(title: str, baseline: str, arms) -> dict:
  return {"title": title, "baseline": baseline, "arms": tuple(map(configs.arm_name, arms))}
