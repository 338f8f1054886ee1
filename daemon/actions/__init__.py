"""What is done after a run changed a branch: a command, a signed request, a folder that flips."""
