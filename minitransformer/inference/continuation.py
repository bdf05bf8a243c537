"""Writing a text on, token by token, for as long as somebody reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from minitransformer.backend import Array, to_host
from minitransformer.models.decoder_only import DecoderOnly


def continuation(
    model: DecoderOnly, prompt: Sequence[int], choose: Callable[[Array], Array]
) -> Iterator[int]:
    """The ids that follow a prompt, without end, each chosen by `choose` (see `sampler`): logits (1, V) -> id (1,).

    When there are max_len tokens, the model continues from the last half of them, which it reads again. Raises
    InputError for a prompt without ids, or with ids that the model does not have.
    """
    text, max_len = list(prompt), model.config.max_len
    while True:
        window = text if len(text) < max_len else text[-max(1, max_len // 2) :]
        tokens, state = model.start_after([window], max_len - len(window) + 1)
        while state.length < state.max_len:
            tokens = choose(model.decode_step(tokens, state))
            text.append(int(to_host(tokens)[0]))
            yield text[-1]
