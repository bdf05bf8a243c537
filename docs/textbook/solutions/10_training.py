"""Solutions to the exercises of chapter 10."""

import math


def accumulate(model, loss_fn, batches):
    """Add up the gradients of all batches as if they were one; the loss of that one."""
    n_tokens = sum(batch.n_tokens for batch in batches)
    total = 0.0
    for batch in batches:
        logits, cache = model.forward(batch.src_ids, batch.tgt_in)
        loss, loss_cache = loss_fn.forward(logits, batch.tgt_out, n_tokens)
        model.backward(loss_fn.backward(loss_cache), cache)
        total += float(loss)
    return total


def warmup_for_peak(d_model, peak):
    """The warm-up after which the schedule of equation 3 is at its peak."""
    return round(1 / (d_model * peak**2))


def best_distance(V, eps_ls):
    """How far the logit of the right word lies above the others where the loss is least."""
    return math.log((1 - eps_ls + eps_ls / V) / (eps_ls / V))
