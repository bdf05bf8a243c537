"""Subwords: pieces of words, so that a few thousand symbols can write any word (§5.1; Sennrich et al. 2016).

Byte-pair encoding by SentencePiece (Kudo and Richardson 2018), from the `text` extra.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

from minitransformer.errors import CheckpointError, ConfigError, InputError, describe
from minitransformer.tasks.parallel_text import fault_of
from minitransformer.tasks.vocabulary import SPECIALS, Vocabulary
from minitransformer.training.batching import BOS, EOS, PAD

UNKNOWN = len(SPECIALS)  # a character that the training text does not have


class Subwords(Vocabulary):
    """A vocabulary of subwords. `proto` is the file that SentencePiece writes."""

    def __init__(self, proto: bytes) -> None:
        self.proto = proto
        try:
            if not proto:  # which SentencePiece would accept
                raise RuntimeError("nothing in it")
            pieces = self._pieces = sentencepiece().SentencePieceProcessor(model_proto=proto)
            self.symbols = tuple(pieces.id_to_piece(i) for i in range(pieces.get_piece_size()))
        except (RuntimeError, UnicodeDecodeError) as error:
            raise CheckpointError(f"the subwords are damaged: no SentencePiece model ({error})") from None

    @classmethod
    def learn(cls, lines: Iterable[str], vocab_size: int) -> Subwords:
        """Learn the `vocab_size` symbols, PAD, BOS, EOS and UNKNOWN among them, that write `lines` in few pieces.

        Deterministic. The pieces reproduce the text: only blanks are normalised. Raises ConfigError if the text has
        fewer pieces than that, or more characters.
        """
        # a list first, since SentencePiece would take an error of `lines` for one of its own
        proto, texts = io.BytesIO(), list(lines)
        try:
            sentencepiece().SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_writer=proto,
                model_type="bpe",
                vocab_size=vocab_size,
                character_coverage=1.0,
                max_sentence_length=1 << 30,
                normalization_rule_name="identity",
                pad_id=PAD,
                bos_id=BOS,
                eos_id=EOS,
                unk_id=UNKNOWN,
                minloglevel=2,
            )
        except RuntimeError as error:
            reason = str(error).rsplit("] ", 1)[-1].split(". Increase")[0]
            raise ConfigError(
                f"vocab_size: cannot learn {vocab_size} subwords from this text ({reason})"
            ) from None
        return cls(proto.getvalue())

    def encode(self, text: str) -> list[int]:
        """Ids of the pieces of `text`; an unknown character is UNKNOWN.

        Raises InputError unless it is a text, without NUL and U+2581, which would not come back.
        """
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"expected a text, got {describe(text)}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:  # half of a surrogate pair
            raise InputError(f"expected a text that UTF-8 can write, got {describe(text)}") from None
        if fault := fault_of(text):
            raise InputError(f"expected a text, got one with {fault}")
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text; [] for an empty one."""
        return list(self._pieces.encode([" ".join(text.split()) for text in texts]))

    def _joined(self, ids: Sequence[int]) -> str:
        return str(self._pieces.decode(ids))


def sentencepiece() -> Any:
    """The module sentencepiece, which is optional. Raises ConfigError, saying what to install, without it."""
    try:
        import sentencepiece
    except ImportError:
        raise ConfigError("task 'text' needs SentencePiece: pip install 'minitransformer[text]'") from None
    return sentencepiece
