"""What each command of `minitransformer` takes, does and prints; `add(commands)` of a module adds its own."""
