"""One training step on several processes, GPUs and machines.

replicas.py       copies of a model in processes of one machine, and the sum of their gradients
processes.py      worker processes, forked from this one
ranks.py          the processes of an MPI job, perhaps on several machines: reduce-scatter and all-gather
exchange.py       the exchange of arrays between ranks
job.py            an MPI job as one program: which rank prints, and how the job ends
sharded_adam.py   Adam, divided among ranks
training_step.py  one update of the weights
"""

from minitransformer.parallel.ranks import Ranks
from minitransformer.parallel.replicas import Replicas, default_processes
from minitransformer.parallel.sharded_adam import ShardedAdam
from minitransformer.parallel.training_step import train_step

__all__ = ["Ranks", "Replicas", "ShardedAdam", "default_processes", "train_step"]
