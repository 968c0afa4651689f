"""The command that tells an experiment tracker of a work directory: `dcnn log`."""

import shlex
from collections.abc import Sequence

from absl import flags

from dcnn.cli import arguments, runtime
from dcnn.cli.messages import FAILURE, Stop, stop_on_errors
from dcnn.jobs import display, tracking, workdirs
from dcnn.jobs.trackers import TRACKERS
from dcnn.results import storage

LOG_HELP = """\
dcnn log DIR --to=TRACKER
    Writes the curves, test errors and settings of a sweep into an experiment tracker, a run for
    each arm and seed, grouped by arm. In training, --log=TRACKER does the same while it goes on.
    What the tracker has already is not written twice. Needs the extra of the tracker's name.

    --to=tensorboard   files in DIR/tensorboard/ARM/seed=N
    --to=wandb         a project named as the experiment; WANDB_MODE=offline writes DIR/wandb,
                       which `wandb sync` uploads, and wandb's other variables hold, too
    --to=mlflow        the server of MLFLOW_TRACKING_URI; without it, files in DIR/mlruns
    --to=A,B           several

Examples:
  dcnn log results/ablations --to=tensorboard
  tensorboard --logdir=results/ablations/tensorboard"""


def log(argv: Sequence[str]) -> None:
  """`dcnn log DIR --to=...`: tells experiment trackers of a finished or unfinished sweep.

  Args:
    argv: The command line behind `log`.

  Raises:
    Stop: On a mistake of the user, or if a tracker fails.
  """
  values = arguments.flag_values()
  flags.DEFINE_string("to", None, "", flag_values=values)
  directories = arguments.parse(values, argv)
  if len(directories) != 1:
    raise Stop("expected one directory, as in `dcnn log results/ablations --to=tensorboard`, got "
               f"{shlex.join(directories) or 'none'}")
  if values.to is None:
    raise Stop(f"--to is missing: which tracker to write to, {', '.join(TRACKERS)}")
  directory = arguments.home_path(directories[0])
  if not directory.is_dir():
    raise Stop(f"{directory}: no such directory")
  names = arguments.trackers_named("to", values.to)
  runtime.quieten_libraries()
  with stop_on_errors(), workdirs.claim(directory):
    workdirs.check_free(directory)
    unfinished = workdirs.is_unfinished(directory)
    result = workdirs.so_far(directory) if unfinished else storage.load(directory)
    for name in names:
      with stop_on_errors(FAILURE):
        runs = tracking.log(name, directory, result)
      display.say(f"{name}: {runs:,} runs in {TRACKERS[name].place(directory)}")
