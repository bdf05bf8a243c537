"""Check a jax.custom_vjp of your own: as a function of NumPy arrays, by central differences in float64.

    pip install jax && python examples/check_a_jax_vjp.py

The check compares the rule that you wrote, which jax.vjp calls, with numerical derivatives, which need only forward.
"""

import jax
import jax.numpy as jnp
import numpy as np

import minitransformer as mt

jax.config.update(
    "jax_enable_x64", True
)  # in float32, half of the digits of a numerical derivative are rounding


@jax.custom_vjp
def log1pexp(x):
    """log(1 + exp(x)), without overflow."""
    return jnp.logaddexp(x, 0.0)


def forward(x):
    return log1pexp(x), x


log1pexp.defvjp(forward, lambda x, dy: (dy * jax.nn.sigmoid(x),))


@jax.custom_vjp
def faulty(x):
    """The same function, with a rule that has the derivative of something else."""
    return jnp.logaddexp(x, 0.0)


faulty.defvjp(lambda x: (faulty(x), x), lambda x, dy: (dy * jax.nn.sigmoid(-x),))


def in_numpy(function):
    """f and f_backward for `gradcheck_function`."""

    def f(*arrays):
        return np.array(function(*arrays))

    def f_backward(dy, *arrays):
        _, vjp = jax.vjp(function, *arrays)
        return [np.array(g) for g in vjp(dy)]

    return f, f_backward


if __name__ == "__main__":
    x = np.random.default_rng(0).normal(size=(3, 5))
    for function in (log1pexp, faulty):
        print(mt.gradcheck_function(*in_numpy(function), x), end="\n\n")
