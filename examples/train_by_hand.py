"""The training loop without the trainer: forward, loss, backward, Adam.

    python examples/train_by_hand.py

learns in a few seconds to copy most sequences of ten symbols that it has never seen.
"""

import numpy as np

import minitransformer as mt
from minitransformer.tasks import BOS, EOS

config = mt.TransformerConfig.preset("toy", vocab_size=13, dropout=0.0)  # 0, 1, 2 are PAD, BOS, EOS
model = mt.Transformer(config, seed=0)
loss_fn = mt.LabelSmoothedCrossEntropy(eps_ls=0.1, pad_id=0)
optimizer = mt.Adam(model, betas=(0.9, 0.98), adam_eps=1e-9)
rng = np.random.default_rng(0)

for step in range(1, 401):
    symbols = rng.integers(3, 13, (64, 10))
    start, end = np.full((64, 1), BOS), np.full((64, 1), EOS)
    tgt_in, tgt_out = np.hstack([start, symbols]), np.hstack([symbols, end])

    model.zero_grad()
    logits, cache = model.forward(symbols, tgt_in, rng=rng)
    loss, loss_cache = loss_fn.forward(logits, tgt_out)
    model.backward(loss_fn.backward(loss_cache), cache)
    mt.clip_grad_norm(model, 1.0)
    optimizer.step(lr=mt.noam_schedule(step, d_model=64, warmup_steps=200))
    if step % 100 == 0:
        print(f"step {step}  loss {loss:.3f} nats per token")

new = rng.integers(3, 13, (200, 10))  # of 10^10 sequences: none that was trained on, in all likelihood
answers = mt.greedy_decode(model, new, bos_id=BOS, eos_id=EOS, max_len=11)[:, :10]
print(f"copied without a mistake: {(answers == new).all(axis=1).mean():.1%} of 200 new sequences")
