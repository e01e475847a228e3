"""The bench: the engine against its floors and against its peers, every number measured in the run that prints it."""
