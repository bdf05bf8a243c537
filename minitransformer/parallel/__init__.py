"""One training step on several processes, GPUs and machines.

replicas.py       copies of a model in processes of one machine, and the sum of their gradients
processes.py      forks of this process that do what it asks
ranks.py          the processes of an MPI job, perhaps on several machines: reduce-scatter and all-gather
exchange.py       how arrays get from rank to rank
job.py            an MPI job as one program: who speaks, and how it ends
sharded_adam.py   Adam, divided among ranks
training_step.py  one update of the weights
"""

from minitransformer.parallel.ranks import Ranks
from minitransformer.parallel.replicas import Replicas, default_processes
from minitransformer.parallel.sharded_adam import ShardedAdam
from minitransformer.parallel.training_step import train_step

__all__ = ["Ranks", "Replicas", "ShardedAdam", "default_processes", "train_step"]
