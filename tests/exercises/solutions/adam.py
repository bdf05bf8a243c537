"""Adam (§5.3; Kingma and Ba 2015): each number gets a step length of its own.

What it should do, with g the gradient of a parameter p and t the number of this step:

    m = beta1 · m + (1 - beta1) · g            m_hat = m / (1 - beta1^t)
    v = beta2 · v + (1 - beta2) · g²           v_hat = v / (1 - beta2^t)
    p = p - lr · m_hat / (sqrt(v_hat) + adam_eps)

What was noticed: the very first step of Adam moves every number by lr, up or down. Here it is less
than half of that. Later on, a batch with a large gradient shortens only the next few steps, although
it should do so for much longer.
"""

from minitransformer.module import Module


class Adam:
    """Updates all parameters of a model."""

    def __init__(
        self, model: Module, betas: tuple[float, float] = (0.9, 0.98), adam_eps: float = 1e-9
    ) -> None:
        self.parameters = list(model.parameters().values())
        self.betas = betas
        self.adam_eps = adam_eps
        self.t = 0
        self.m = [p.data * 0 for p in self.parameters]
        self.v = [p.data * 0 for p in self.parameters]

    def step(self, lr: float) -> None:
        """Move every parameter against its gradient."""
        self.t += 1
        beta1, beta2 = self.betas
        for p, m, v in zip(self.parameters, self.m, self.v, strict=True):
            m *= beta1
            m += (1 - beta1) * p.grad
            v *= beta2
            v += (1 - beta2) * p.grad * p.grad
            m_hat = m / (1 - beta1**self.t)
            v_hat = v / (1 - beta2**self.t)
            p.data -= lr * m_hat / (v_hat**0.5 + self.adam_eps)
