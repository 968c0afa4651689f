"""The networks in the sizes that their papers train: one arm each, for accelerators.

Claim tested: none; these are starting points. The defaults of the project are small networks that
train on two cores, and a published error belongs to a published size. Each variant sets the network
alone: give data, steps and the batch size on the command line.
  dcnn --config=official:painn --config.dataset=TRAIN.extxyz --config.steps=200000

Variants, after a colon (the empty one is painn):
  painn             K. T. Schuett et al., arXiv:2102.03150
  mace              I. Batatia et al., arXiv:2206.07697: its sizes, with products on the grid
  cgcnn, cgcnn_star       arXiv:2310.01649: with BatchNorm; and after the paper's steps
                    (give --config.labels=power_of_ten for the third of them)
  forcenet, forcenet_star  the same
  dimenet           J. Gasteiger et al., arXiv:2011.14115
  dimenet_ocp       as arXiv:2310.01649 ran it: forces ignore the angles
  gemnet            J. Gasteiger et al., arXiv:2106.08903, with the Gaussians and the residual
                    layers of OC20's code in place of 6 Bessel functions and fewer layers
  gemnet_oc20       as arXiv:2310.01649 ran it, with the factors of OC20
"""

from dcnn import configs

CGCNN = {
    "model.name": "CGCNN", "model.features": 512, "model.blocks": 3, "model.output_features": 128,
    "model.output_layers": 3, "model.cutoff": 6.0, "model.radial": 100,
    "model.envelope": "faithful", "model.normaliser": "batch", "activation.name": "softplus"}
FORCENET = {
    "model.name": "ForceNet", "model.features": 512, "model.blocks": 5, "model.cutoff": 6.0,
    "model.radial": 50, "model.envelope": "faithful", "model.normaliser": "batch",
    "activation.name": "silu"}
DIMENET = {
    "model.name": "DimeNetPlusPlus", "model.features": 128, "model.blocks": 4,
    "model.triplet_features": 64, "model.basis_features": 8, "model.output_features": 256,
    "model.cutoff": 5.0, "activation.name": "silu"}
GEMNET = {
    "model.name": "GemNetT", "model.features": 128, "model.atom_features": 128,
    "model.triplet_features": 64, "model.bilinear_features": 64, "model.basis_features": 16,
    "model.blocks": 4, "model.cutoff": 5.0, "activation.name": "scaled_silu"}
IRELU = {"activation.name": "irelu"}

VARIANTS = {
    "painn": {
        "model.name": "PaiNN", "model.features": 128, "model.blocks": 3, "model.radial": 20,
        "model.envelope": "faithful", "model.cutoff": 5.0, "activation.name": "silu"},
    "mace": {
        "model.name": "GridACE", "model.features": 256, "model.blocks": 2, "model.radial": 8,
        "model.degree": 3, "model.passed": 2, "activation.name": "silu"},
    "cgcnn": CGCNN,
    "cgcnn_star": CGCNN | IRELU | {
        "model.normaliser": "layer", "activation.where": "output_block"},
    "forcenet": FORCENET,
    "forcenet_star": FORCENET | IRELU | {
        "model.normaliser": "none", "model.node_update": "as_run"},
    "dimenet": DIMENET,
    "dimenet_ocp": DIMENET | {
        "model.features": 192, "model.blocks": 3, "model.output_features": 192,
        "model.cutoff": 6.0, "model.angles": "detached"},
    "gemnet": GEMNET,
    "gemnet_oc20": GEMNET | {
        "model.features": 512, "model.atom_features": 512, "model.radial": 128,
        "model.blocks": 3, "model.cutoff": 6.0, "model.scales": "oc20"},
}


def get_config(arg: str = "") -> configs.ConfigDict:
  """The configuration of a variant; the empty one is PaiNN."""
  name = arg or "painn"
  if name not in VARIANTS:
    raise ValueError(f"unknown variant {arg!r}; known are {', '.join(VARIANTS)}")
  config = configs.default()
  config.experiment = f"official:{name}"
  config.question = f"How accurate is {name} in the size of its paper?"
  config.labels = "standardize"
  config.update_from_flattened_dict(VARIANTS[name])
  # Running statistics belong to the parameters of each step and not to their average.
  config.optimizer.ema_decay = 0.0 if config.model.normaliser == "batch" else 0.999
  return config
