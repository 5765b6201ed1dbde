"""`python -m agentkit`: the command line, where the script `agentkit` is not on the PATH."""

from agentkit.cli import main

if __name__ == "__main__":
    main()
