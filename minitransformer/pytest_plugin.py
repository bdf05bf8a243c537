"""The pytest plugin: a fixture `gradcheck`, whose checks are assertions.

    def test_my_layer(gradcheck):
        gradcheck(MyLayer(8), x)
        gradcheck.function(f, f_backward, x, method="complex")

pytest loads this file in every suite where minitransformer is installed, so it imports nothing before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from minitransformer.gradcheck import GradcheckReport


@pytest.fixture
def gradcheck() -> AssertGradients:
    """`minitransformer.gradcheck` as an assertion, and with `.function` `minitransformer.gradcheck_function`."""
    return AssertGradients()


class AssertGradients:
    """Gradient checks that fail with the table of the report, and return the report otherwise."""

    def __call__(self, layer: Any, *inputs: Any, **options: Any) -> GradcheckReport:
        from minitransformer.gradcheck import gradcheck

        __tracebackhide__ = True
        return gradcheck(layer, *inputs, **options).raise_if_wrong()

    def function(self, f: Any, f_backward: Any, *arguments: Any, **options: Any) -> GradcheckReport:
        from minitransformer.gradcheck import gradcheck_function

        __tracebackhide__ = True
        return gradcheck_function(f, f_backward, *arguments, **options).raise_if_wrong()
