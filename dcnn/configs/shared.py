"""The settings that every task has: experiment, activation, optimiser, length, seeds and arms."""

from typing import Any

from dcnn.activations import ACTIVATIONS, meaning
from dcnn.configs.settings import (
    Setting,
    fraction,
    is_integer,
    not_negative,
    of_either_sign,
    positive,
    positive_whole,
    require,
    within,
)
from dcnn.optimizers import OPTIMIZERS, SCHEDULES
from dcnn.results.schemas import MOST_LOOKS

MOST_FACTOR = 10  # of successive halving
MOST_POWER = 16  # of an activation; float32 keeps the sixteenth powers of 0.004 to 250
INITS = ("plain", "init_matched", "variance_preserving")
DIVERGENCE_POLICIES = ("record", "stop")
PLACES = ("everywhere", "output_block")


def _whole_number_of_validations(value: Any, key: str) -> None:
  require(is_integer(value) and value >= 0,
          f"{key} must be a whole number of validations, 0 for none, got {value!r}")


def _whole_factor(value: Any, key: str) -> None:
  require(is_integer(value) and (value == 0 or 2 <= value <= MOST_FACTOR),
          f"{key} must be 0 for none, or a whole number within 2 and {MOST_FACTOR}, got {value!r}")


EXPERIMENT = (
    Setting("experiment", "experiment", "The name of the experiment, in tables and files."),
    Setting("question", "", "What the experiment asks; it stands at the head of the report."),
)

ACTIVATION = (
    Setting("activation.name", "irelu",
            "The activation: a name, or a function of an array in an experiment file.",
            choices=tuple(ACTIVATIONS), role="program", objects=True, explain=meaning),
    Setting("activation.c", 0.5, "The factor of irelu, c max(0, x)^2 + offset.",
            check=positive, role="number"),
    Setting("activation.offset", 0.0, "The additive constant of irelu.",
            check=of_either_sign, role="number"),
    Setting("activation.negative_slope", 0.01, "The slope below 0 of leaky_relu and its integral.",
            check=not_negative, role="number"),
    Setting("activation.power", 2, "The power of repu.", check=within(1, MOST_POWER),
            role="program"),
    Setting("activation.where", "everywhere",
            "Where the activation stands: everywhere, or in the output block, with silu elsewhere "
            "(softplus in CGCNN, scaled_silu in GemNetT).",
            choices=PLACES, role="program"),
    Setting("init", "plain",
            "The initial weights: plain (1 / sqrt(inputs)); init_matched, which divides those that "
            "read irelu by c / 0.5, so that the network starts as that of c = 0.5; or "
            "variance_preserving, with the gain of the activation.",
            choices=INITS, role="fitted"),
)

TRAINING = (
    Setting("optimizer.name", "adam",
            "The optimiser: a name, or a function that makes an optax transformation.",
            choices=tuple(OPTIMIZERS), role="program", objects=True),
    Setting("optimizer.learning_rate", 1e-3, "The learning rate after the warm-up.",
            check=positive, role="number"),
    Setting("optimizer.schedule", "cosine",
            "How the learning rate falls after the warm-up: a name, or a function from a number of "
            "steps to an optax schedule that starts at 1.",
            choices=tuple(SCHEDULES), role="program", objects=True),
    Setting("optimizer.warmup", 0, "Steps in which the learning rate rises linearly.", "steps",
            check=not_negative, role="program"),
    Setting("optimizer.weight_decay", 0.0, "Decoupled weight decay, as in AdamW.",
            check=not_negative, role="number"),
    Setting("optimizer.clip_norm", 0.0, "The largest norm of the whole gradient; 0 for none.",
            check=not_negative, role="number"),
    Setting("optimizer.eps", 1e-8, "The constant in the denominator of Adam and its kind.",
            check=positive, role="number"),
    Setting("optimizer.b1", None,
            "The decay of the first moment of Adam and its kind; None for the optimiser's own.",
            check=fraction, role="program", kind=float, optional=True),
    Setting("optimizer.b2", None,
            "The decay of the second moment of Adam and its kind; None for the optimiser's own.",
            check=fraction, role="program", kind=float, optional=True),
    Setting("optimizer.momentum", None,
            "The momentum of sgd and muon; None for the optimiser's own.",
            check=fraction, role="program", kind=float, optional=True),
    Setting("optimizer.ema_decay", 0.0,
            "The decay of the moving average of the parameters that is evaluated; 0 for none.",
            check=fraction, role="number"),
    Setting("steps", 2000, "The length of a training.", "steps", check=positive_whole),
    Setting("batch_size", 10, "Frames in the batch of a step.", check=positive_whole,
            role="program"),
    Setting("chunk", 100, "Steps between two validations.", "steps", check=positive_whole),
    Setting("patience", 0,
            "Validations without a better one after which a run ends; 0 for never.",
            check=_whole_number_of_validations),
    Setting("on_divergence", "record",
            "What a run that becomes non-finite does: it is recorded and the others go on, or it "
            "stops the sweep.", choices=DIVERGENCE_POLICIES),
    Setting("seeds", 10, "A number n for the seeds 0 to n - 1, or a list of seeds.", kind=object),
    Setting("arms", ({},),
            "The arms: dictionaries of the settings in which each differs from the rest."),
    Setting("tables", (),
            "The comparisons of the report: dictionaries of title, baseline and arms; and of "
            "factors, the keys of two settings, where the arms are all pairs of their values. "
            "Without any table, all arms are compared with the first."),
    Setting("looks", 1,
            "How many times the report is looked at while seeds are added, decided before the "
            "first. Each look takes its share of the 5 % of false verdicts; one that was not "
            "planned gets next to nothing.", "looks", check=within(1, MOST_LOOKS)),
    Setting("tuning.learning_rates", (),
            "Learning rates from which each arm chooses its own on validation data; none for no "
            "tuning."),
    Setting("tuning.seeds", (), "The seeds of that choice, other than those reported."),
    Setting("tuning.halving", 0,
            "Factor of successive halving: of the learning rates of an arm only 1 / factor, and no "
            "fewer than two, go on each time that the steps have grown by it. 0 trains all to the "
            "end. It saves time on CPUs, where runs follow one another.",
            check=_whole_factor),
    Setting("max_memory", None,
            "Memory that a launch may take on a device; None for 80 % of it. Data that take more "
            "than half of that are streamed from the host.", "GB",
            check=positive, kind=float, optional=True),
    Setting("devices_per_run", 1,
            "Devices that share the batch of a run, where runs are few or too large for one.",
            check=positive_whole),
    Setting("checkpoint_every", 30.0, "The most work that is lost if the machine dies.", "seconds",
            check=positive),
)
