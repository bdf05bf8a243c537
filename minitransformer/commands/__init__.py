"""The commands of `minitransformer`: their arguments and output; `add(commands)` of a module adds its own."""
