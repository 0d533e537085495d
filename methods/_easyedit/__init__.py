"""EasyEdit's algorithms in a child process: the parent's half, the child's, and what they share."""
