"""Optimisers: minima, optax's own results, states that can be saved, switches and refusals."""

import functools

import chex
import daily
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from dcnn import optimizers

# Learning rate and weight decay with which each is to find the minima below.
SETTINGS = {
    "adam": (0.05, 0.0), "adamw": (0.05, 1e-4), "sgd": (0.1, 0.0), "lion": (0.05, 0.0),
    "muon": (0.1, 0.0), "schedule_free": (0.2, 0.0), "prodigy": (1.0, 0.0), "soap": (0.05, 0.0)}
STEPS = 1000
START = {"matrix": jnp.array([[2.0, -1.0], [0.5, 1.5]]), "bias": jnp.array([1.0, -2.0]),
         "number": jnp.array(3.0)}


def quadratic(params):
  """Curvatures of 1, 2 and 3; 0 at 1."""
  leaves = jax.tree.leaves(params)
  return sum(jnp.sum((k + 1) * (leaf - 1) ** 2) for k, leaf in enumerate(leaves)) / 2


def regression(params):
  """A layer of tanh with the same parameters, which is to learn that with all parameters 1/2."""
  inputs = jax.random.normal(jax.random.key(0), (32, 2))

  def output(params):
    return params["number"] * jnp.tanh(inputs @ params["matrix"] + params["bias"])

  target = output(jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.5), params))
  return jnp.mean((output(params) - target) ** 2)


def minimised(make_optimizer, hypers, loss, evaluated=None, steps=STEPS):
  """The variables that are evaluated after training, and the state."""
  optimizer = make_optimizer(hypers)

  def body(carry, _):
    params, state = carry
    updates, state = optimizer.update(jax.grad(loss)(params), state, params)
    return (optax.apply_updates(params, updates), state), None

  (params, state), _ = jax.lax.scan(body, (START, optimizer.init(START)), length=steps)
  return (evaluated(state, params) if evaluated else params), state


def made(name, **options):
  """The optimiser of a name, with what it needs, and numbers with which it works."""
  record = optimizers.OPTIMIZERS[name]
  rate, decay = SETTINGS[name]
  schedule = "constant" if record.needs_constant_rate else "cosine"
  options = {"steps": STEPS, "schedule": schedule, "weight_decay": decay > 0, **options}
  hypers = {"learning_rate": rate, "weight_decay": decay, "clip_norm": 100.0}
  return optimizers.make(name, **options), hypers, record.evaluated


@pytest.mark.parametrize("loss, share", [
    (quadratic, 1e-6), pytest.param(regression, 0.02, marks=pytest.mark.nightly)],
    ids=["quadratic", "regression"])
@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_each_minimises(name, loss, share):
  """The regression has a flat valley, in which a large `number` meets a flat tanh."""
  make_optimizer, hypers, evaluated = made(name)
  found, _ = jax.jit(lambda: minimised(make_optimizer, hypers, loss, evaluated))()
  assert loss(found) < share * loss(START)


@pytest.mark.parametrize("name", daily.only(("adam", "muon"), optimizers.OPTIMIZERS))
def test_learning_rates_are_traced_and_mapped(name):
  """A loop over learning rates, which is what the arms of a sweep are."""
  make_optimizer, hypers, evaluated = made(name, clip=True, weight_decay=True)

  def run(rate):
    numbers = {**hypers, "learning_rate": rate, "weight_decay": rate / 100}
    return minimised(make_optimizer, numbers, quadratic, evaluated, steps=20)[0]

  rates = hypers["learning_rate"] * jnp.array([1.0, 0.1, 0.3])
  mapped = jax.jit(jax.vmap(run))(rates)
  single = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(jax.jit(run)(r) for r in rates))
  chex.assert_trees_all_close(mapped, single, rtol=1e-4, atol=1e-5)
  moved = jax.vmap(quadratic)(mapped)
  assert len(np.unique(np.asarray(moved))) == 3


@pytest.mark.parametrize("name", daily.only(("adam", "muon", "soap"), optimizers.OPTIMIZERS))
def test_every_parameter_is_traced_and_matters(name):
  """Each of its parameters changes what is found, as a traced number, and has a default."""
  make_optimizer, hypers, evaluated = made(name, weight_decay=True)
  record = optimizers.OPTIMIZERS[name]
  changed = {"b1": 0.5, "b2": 0.6, "eps": 0.3, "momentum": 0.6}

  def run(own):
    return minimised(make_optimizer, {**hypers, "weight_decay": 0.01, **own}, quadratic,
                     evaluated, steps=60)[0]

  plain = run({})
  for parameter in set(record.parameters) & set(changed):
    other = jax.jit(lambda value, parameter=parameter: run({parameter: value}))(changed[parameter])
    chex.assert_tree_all_finite(other)
    with pytest.raises(AssertionError):
      chex.assert_trees_all_close(plain, other, rtol=1e-4)


@pytest.mark.nightly
@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_the_state_is_arrays_and_survives_being_taken_apart(name):
  """Checkpoints save the leaves of the state and put them back."""
  make_optimizer, hypers, _ = made(name, clip=True, weight_decay=True)
  optimizer = make_optimizer(hypers)
  state, gradient = optimizer.init(START), jax.grad(quadratic)(START)
  leaves, form = jax.tree.flatten(state)
  assert all(isinstance(leaf, jax.Array) for leaf in leaves)
  again = jax.tree.unflatten(form, [jnp.asarray(np.asarray(leaf)) for leaf in leaves])
  updates, new_state = optimizer.update(gradient, state, START)
  chex.assert_trees_all_equal(optimizer.update(gradient, again, START), (updates, new_state))
  chex.assert_trees_all_equal_shapes_and_dtypes(state, new_state)


def rate(hypers, count):
  """A cosine over the training, as optax writes it."""
  return hypers["learning_rate"] * optax.cosine_decay_schedule(1.0, STEPS)(count)


DECAY = 0.02
AS_DOCUMENTED = {
    "adam": lambda rate: optax.adam(rate),
    "adamw": lambda rate: optax.adamw(rate, weight_decay=DECAY),
    "sgd": lambda rate: optax.sgd(rate),
    "lion": lambda rate: optax.lion(rate, weight_decay=DECAY),
    "muon": lambda rate: contrib.muon(
        rate, weight_decay=DECAY, adam_weight_decay=DECAY, consistent_rms=0.2),
    "schedule_free": lambda rate: contrib.schedule_free_adamw(rate, weight_decay=DECAY),
    "prodigy": lambda rate: contrib.prodigy(rate, weight_decay=DECAY),
}


@pytest.mark.parametrize("name", AS_DOCUMENTED)
def test_each_is_that_of_optax(name, x64):
  decays = name not in ("adam", "sgd")
  hypers = {"learning_rate": SETTINGS[name][0], "weight_decay": DECAY}
  ours = optimizers.make(name, steps=STEPS, schedule="cosine", weight_decay=decays)
  theirs = AS_DOCUMENTED[name](functools.partial(rate, hypers))
  found, state = minimised(ours, hypers, quadratic, steps=30)
  expected, their_state = minimised(lambda _: theirs, hypers, quadratic, steps=30)
  chex.assert_trees_all_close(found, expected, rtol=1e-6)
  if optimizers.OPTIMIZERS[name].evaluated:
    chex.assert_trees_all_close(
        optimizers.OPTIMIZERS[name].evaluated(state, found),
        contrib.schedule_free_eval_params(their_state, expected), rtol=1e-6)


def test_schedule_free_evaluates_the_average_of_its_iterates():
  """With a constant rate all iterates z count alike: x is their mean."""
  make_optimizer = optimizers.make("schedule_free", steps=STEPS, clip=True)
  optimizer = make_optimizer({"learning_rate": 0.1, "clip_norm": 1.0})
  params, state, iterates = START, optimizer.init(START), []
  for _ in range(5):
    updates, state = optimizer.update(jax.grad(quadratic)(params), state, params)
    params = optax.apply_updates(params, updates)
    iterates.append(next(
        node.z for node in jax.tree.leaves(
            state, is_leaf=lambda node: isinstance(node, contrib.ScheduleFreeState))
        if isinstance(node, contrib.ScheduleFreeState)))
  average = optimizers.OPTIMIZERS["schedule_free"].evaluated(state, params)
  np.testing.assert_allclose(
      jax.flatten_util.ravel_pytree(average)[0], np.mean(iterates, axis=0), rtol=1e-4)


def test_clipping_comes_first_and_decay_is_not_clipped():
  hypers = {"learning_rate": 1.0, "clip_norm": 1.0, "weight_decay": 10.0}
  optimizer = optimizers.make("sgd", steps=1, clip=True, weight_decay=True)(hypers)
  updates, _ = optimizer.update(jnp.array([30.0, 40.0]), optimizer.init(jnp.ones(2)), jnp.ones(2))
  np.testing.assert_allclose(updates, [-10.6, -10.8], rtol=1e-6)


@pytest.mark.parametrize("schedule", [*optimizers.SCHEDULES, lambda steps: lambda count: 1 - count])
def test_a_warm_up_rises_to_the_schedule(schedule):
  """In step t, counted from 0, by (t + 1) / (warmup + 1); then the schedule of what remains."""
  hypers = {"learning_rate": 2.0}
  optimizer = optimizers.make("sgd", steps=7, schedule=schedule, warmup=3)(hypers)
  state, sizes = optimizer.init(jnp.zeros(1)), []
  for _ in range(7):
    updates, state = optimizer.update(jnp.ones(1), state)
    sizes.append(-float(updates[0]) / 2)
  after = optimizers.resolve_schedule(schedule)(4)
  np.testing.assert_allclose(sizes, [0.25, 0.5, 0.75, *(after(t) for t in range(4))], atol=1e-6)


def signed(learning_rate, scale=1.0):
  """A user's optimiser, which takes the learning rate."""
  return optax.chain(
      optax.stateless(lambda updates, _: jax.tree.map(jnp.sign, updates)),
      optax.scale(scale), optax.scale_by_learning_rate(learning_rate))


OWN = {
    "of optax": (optax.adabelief, ("learning_rate", "eps", "b1", "b2")),
    "a direction of optax": (optax.scale_by_belief, ("eps", "b1", "b2")),
    "a function": (signed, ("learning_rate",)),
    "a partial": (functools.partial(optax.scale_by_amsgrad, b1=0.5), ("eps", "b1", "b2")),
    "nothing": (optax.identity, ()),
    "a record": (optimizers.Optimizer(optax.scale_by_belief, ("b1",), flat=True), ("b1",)),
    "decay inside": (optax.nadamw, ("learning_rate", "weight_decay", "eps", "b1", "b2")),
}


@pytest.mark.parametrize("name", OWN)
def test_an_optimizer_of_the_users_own(name):
  spec, parameters = OWN[name]
  assert optimizers.resolve(spec).parameters == parameters
  hypers = {"learning_rate": 0.1, "b1": 0.9}
  make_optimizer = optimizers.make(spec, steps=STEPS, schedule="cosine")
  found, _ = jax.jit(lambda: minimised(make_optimizer, hypers, quadratic))()
  assert quadratic(found) < 1e-2 * quadratic(START)


def test_a_switched_off_decay_is_none_whatever_the_default_of_the_function():
  """optax.nadamw decays by 1e-4 unless it is told."""
  decayed, plain = (
      minimised(optimizers.make(optax.nadamw, steps=STEPS, weight_decay=on),
                {"learning_rate": 0.1, "weight_decay": 0.5}, lambda params: 0.0 * quadratic(params))
      for on in (True, False))
  chex.assert_trees_all_equal(plain[0], START)
  assert quadratic(decayed[0]) != quadratic(START)


@pytest.mark.parametrize("act, words", [
    (lambda: optimizers.resolve("adma"), "unknown optimizer 'adma': did you mean 'adam'"),
    (lambda: optimizers.resolve(optax.adam(1e-3)), "pass the function itself and not what it"),
    (lambda: optimizers.resolve(1e-3), "a function that makes one.*received 0.001"),
    (lambda: optimizers.resolve(optax.lookahead), "lookahead needs fast_optimizer.*functools"),
    (lambda: optimizers.make("adamw", steps=9), "with weight_decay=0 it is adam: set weight_decay"),
    (lambda: optimizers.make(signed, steps=9, weight_decay=True), "signed takes learning_rate and"),
    (lambda: optimizers.resolve_schedule("cosin"), "unknown schedule 'cosin': did you mean 'cos"),
    (lambda: optimizers.resolve_schedule(0.1), "a function of the number of steps, received 0.1"),
    (lambda: optimizers.make("sgd", steps=9, schedule=optax.linear_schedule(1, 0, 9)),
     "take lambda steps: schedule"),
], ids=["misspelt", "made", "number", "needs more", "adamw", "no decay", "schedule", "no schedule",
        "schedule made"])
def test_refusals(act, words):
  with pytest.raises(ValueError, match=words):
    act()


def directions_of_soap(gradients, b1, b2, eps, every):
  """Algorithm 3 for one matrix, written out in NumPy."""
  mean, square, left, right = 0.0, 0.0, 0.0, 0.0
  for count, gradient in enumerate(gradients, start=1):
    left = b2 * left + (1 - b2) * gradient @ gradient.T
    right = b2 * right + (1 - b2) * gradient.T @ gradient
    if (count - 1) % every == 0:
      q_left, q_right = np.linalg.eigh(left)[1], np.linalg.eigh(right)[1]
    mean = b1 * mean + (1 - b1) * gradient
    square = b2 * square + (1 - b2) * (q_left.T @ gradient @ q_right) ** 2
    unbiased = (q_left.T @ mean @ q_right) / (1 - b1**count)
    whole = square / (1 - b2**count)
    rounding = 100 * np.finfo(float).eps * np.sqrt(whole.sum())
    yield q_left @ (unbiased / (np.sqrt(whole) + eps + rounding)) @ q_right.T


def soap_on(gradients, **parameters):
  """The directions for a sequence of gradients, one after another."""
  optimizer = optimizers.soap(**parameters)
  state, found = optimizer.init(gradients[0]), []
  for gradient in gradients:
    updates, state = optimizer.update(gradient, state)
    found.append(updates)
  return found


@pytest.mark.parametrize("shape, every", [((4, 4), 4), ((3, 5), 1), ((6, 2), 1)])
def test_soap_is_its_algorithm(shape, every, x64):
  gradients = np.random.default_rng(1).normal(size=(9, *shape))
  parameters = {"b1": 0.9, "b2": 0.8, "eps": 1e-3, "every": every}
  found = soap_on(list(jnp.asarray(gradients)), **parameters)
  np.testing.assert_allclose(found, list(directions_of_soap(gradients, **parameters)), rtol=1e-7)


def test_soap_turns_with_the_variables(x64):
  """Adam depends on the axes of a matrix, and SOAP does not; what is no matrix gets Adam."""
  rng = np.random.default_rng(2)
  gradients = rng.normal(size=(7, 2, 4, 4))  # a stack of two matrices
  left, right = (np.linalg.qr(rng.normal(size=(4, 4)))[0] for _ in range(2))
  found = soap_on(list(jnp.asarray(gradients)), every=2)
  turned = soap_on(list(jnp.asarray(left @ gradients @ right)), every=2)
  np.testing.assert_allclose(turned, left @ np.array(found) @ right, rtol=1e-5, atol=1e-8)
  alone = soap_on(list(jnp.asarray(gradients[:, 1])), every=2)
  np.testing.assert_allclose(np.array(found)[:, 1], alone, rtol=1e-7)
  adam = optimizers.adam(b1=0.95, b2=0.95)
  state = adam.init(jnp.zeros(4))
  for gradient, update in zip(gradients, soap_on(list(jnp.asarray(gradients[:, 0, 0]))),
                              strict=True):
    expected, state = adam.update(jnp.asarray(gradient[0, 0]), state)
    np.testing.assert_allclose(update, expected, rtol=1e-7)


def test_soap_takes_no_rounding_for_a_gradient():
  """With equal columns, seven of eight directions have no gradient but that of rounding."""
  column = 1e3 * jax.random.normal(jax.random.key(0), (6, 8, 1))
  for update in soap_on(list(column + jnp.zeros((6, 8, 8)))):
    assert jnp.abs(update - update.mean(axis=1, keepdims=True)).max() < 0.02
    assert jnp.abs(update).max() > 0.1


def test_soap_outruns_adam_where_curvatures_lie_across_the_axes():
  curvatures = jnp.logspace(0, 3, 8)
  turn = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (8, 8)))[0]

  def loss(params):
    return jnp.sum(curvatures[:, None] * (turn @ params["matrix"]) ** 2) / 2

  def remaining(function):
    optimizer = optax.chain(function(), optax.scale_by_schedule(optimizers.cosine(300)),
                            optax.scale(-0.03))
    params = {"matrix": jax.random.normal(jax.random.key(1), (8, 8))}

    def body(carry, _):
      params, state = carry
      updates, state = optimizer.update(jax.grad(loss)(params), state, params)
      return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(body, (params, optimizer.init(params)), length=300)
    return loss(params)

  assert remaining(optimizers.soap) < 0.01 * remaining(optimizers.adam)


@pytest.mark.parametrize("spec, learning_rate, schedule, words", [
    ("adam", 1e-3, "cosine", ()), ("prodigy", 1.0, "cosine", ()), ("lion", 1e-4, "linear", ()),
    ("schedule_free", 1e-2, "constant", ()), ("schedule_free", 1e-2, optimizers.constant, ()),
    ("prodigy", 1e-3, "cosine", ("0.1 to 10",)), ("lion", 1e-2, "cosine", ("1e-06 to 0.002",)),
    ("schedule_free", 1e-2, "cosine", ("take constant",)),
    (functools.partial(signed, scale=2.0), 1.0, "cosine", ())])
def test_pitfalls(spec, learning_rate, schedule, words):
  found = optimizers.pitfalls(spec, learning_rate=learning_rate, schedule=schedule)
  assert len(found) == len(words)
  assert all(word in sentence for word, sentence in zip(words, found, strict=True))
